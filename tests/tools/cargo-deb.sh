# shellcheck shell=bash
# Sourced by `tests/run`: cargo-deb, which makes the Debian package, under target/tools/cargo-deb.
cargo_deb_version=3.8.0
cargo_deb=target/tools/cargo-deb/bin/cargo-deb
if [ "$("$cargo_deb" --version 2>/dev/null)" != "$cargo_deb_version" ]; then
    echo "installing cargo-deb $cargo_deb_version from crates.io (some minutes)"
    cargo install --quiet --locked --root target/tools/cargo-deb --version "$cargo_deb_version" cargo-deb ||
        die "cargo could not install cargo-deb $cargo_deb_version"
fi

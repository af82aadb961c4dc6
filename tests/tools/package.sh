# shellcheck shell=bash
# What the check of the Debian package needs. `tests/run` sources this; `apt_install` is its.
if ! { command -v lintian && command -v systemd-nspawn && command -v debootstrap && command -v openssl; } >/dev/null; then
    apt_install lintian systemd-container debootstrap openssl
fi

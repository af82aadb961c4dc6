# shellcheck shell=bash
# What the check of the Debian package needs. `tests/run` sources this; `apt_install` is its.
if ! command -v lintian >/dev/null || ! command -v systemd-nspawn >/dev/null || ! command -v debootstrap >/dev/null; then
    apt_install lintian systemd-container debootstrap
fi

# shellcheck shell=bash
# Another clock for programs under test, from Debian. `tests/run` sources this; `apt_install` is its.
compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || apt_install faketime

# shellcheck shell=bash
# The program that tests the API against its own description, from PyPI, in a virtual environment of its own.
# `tests/run` sources this; `apt_install` and `die` are its.
schemathesis=$PWD/target/tools/schemathesis
if [ ! -x "$schemathesis/bin/schemathesis" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
    echo "installing schemathesis from PyPI"
    rm -rf "$schemathesis"
    python3 -m venv "$schemathesis"
    "$schemathesis/bin/pip" install --quiet --disable-pip-version-check 'schemathesis==4.32.5' ||
        { rm -rf "$schemathesis"; die "schemathesis cannot be installed: pip refused it"; }
fi

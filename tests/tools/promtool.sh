# shellcheck shell=bash
# promtool, which checks metrics and alert rules, out of Debian's package of Prometheus; the package itself is not
# installed, as it would start a service. `tests/run` sources this; `as_root` and `die` are its.
promtool=$PWD/target/tools/promtool/promtool

fetch_promtool() {
    rm -rf "${promtool%/*}"
    mkdir -p "${promtool%/*}"
    cd "${promtool%/*}"
    # Lists of packages may be missing or too old: then once more with new ones.
    apt-get -q download prometheus || { as_root apt-get -q update && apt-get -q download prometheus; }
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 ./usr/bin/promtool
    rm prometheus_*.deb
}

if ! "$promtool" --version >/dev/null 2>&1; then
    echo "taking promtool out of Debian's package prometheus"
    mkdir -p target/tools
    (set -e; fetch_promtool) >target/tools/promtool.log 2>&1 || true
    "$promtool" --version >/dev/null 2>&1 || {
        tail -n 5 target/tools/promtool.log >&2
        die "promtool cannot be had from Debian's package prometheus; put one at ${promtool#"$PWD/"}"
    }
fi

# shellcheck shell=bash
# Ceph's object gateway for the object store tests, from Debian. `tests/run` sources this; `apt_install` is its.
for program in radosgw radosgw-admin ceph ceph-mon ceph-osd ceph-authtool monmaptool uuidgen; do
    if ! command -v "$program" >/dev/null; then
        apt_install ceph-mon ceph-osd ceph-mgr radosgw uuid-runtime
        break
    fi
done

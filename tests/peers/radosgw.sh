#!/bin/bash
# One Ceph cluster of a monitor, an OSD in memory and an object gateway, for tests.
#
#   radosgw.sh <empty folder> <port of the gateway> <two more free ports>
#
# Prints `ready` once it serves user `tester` with key `tester-key` and secret `tester-secret`, and user `small` (the
# same with `small`), whose buckets take 3 objects. Ends, and kills what it
# started, when its standard input ends. Everything listens on 127.0.0.1.
set -euo pipefail
folder=$1 port=$2 v2=$3 v1=$4
cd "$folder"
export CEPH_CONF=$folder/ceph.conf CEPH_KEYRING=$folder/keyring
cluster=$(uuidgen)
children=()

# shellcheck disable=SC2317 # called by the trap
finish() {
    trap - EXIT
    [ ${#children[@]} = 0 ] || kill -9 "${children[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
}
trap finish EXIT
trap 'exit 1' TERM INT

start() {
    "$@" >>"$folder/daemons.log" 2>&1 </dev/null &
    children+=($!)
}

cat >ceph.conf <<END
[global]
fsid = $cluster
mon initial members = a
mon host = v2:127.0.0.1:$v2,v1:127.0.0.1:$v1
public network = 127.0.0.0/8
keyring = $folder/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
osd objectstore = memstore
osd class load list = *
osd class default list = *
mon data avail crit = 1
mon data = $folder/mon
osd data = $folder/osd
run dir = $folder
log file = $folder/\$name.log
admin socket = $folder/\$name.asok
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw data = $folder/rgw
rgw dns name = localhost
rgw bucket quota ttl = 0
END
mkdir -p mon osd rgw
{
    ceph-authtool -C keyring --gen-key -n mon. --cap mon 'allow *'
    ceph-authtool keyring --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
    ceph-authtool keyring --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *'
    ceph-authtool keyring --gen-key -n client.rgw --cap mon 'allow rw' --cap osd 'allow rwx'
    monmaptool --create --fsid "$cluster" --addv a "[v2:127.0.0.1:$v2,v1:127.0.0.1:$v1]" monmap
    ceph-mon --mkfs -i a --monmap monmap --keyring keyring
} >>setup.log 2>&1
start ceph-mon -i a -f
{
    disk=$(uuidgen)
    timeout 60 ceph osd new "$disk"
    ceph-osd -i 0 --mkfs --osd-uuid "$disk"
    timeout 60 ceph osd crush add osd.0 1.0 root=default host=h
} >>setup.log 2>&1
start ceph-osd -i 0 -f
for _ in $(seq 240); do
    ! timeout 20 ceph osd stat 2>/dev/null | grep -q ' 1 up' || break
    sleep 0.25
done
start radosgw -n client.rgw -f
timeout 90 radosgw-admin -n client.rgw user create --uid tester --display-name tester \
    --access-key tester-key --secret-key tester-secret >>setup.log 2>&1
{
    radosgw-admin -n client.rgw user create --uid small --display-name small \
        --access-key small-key --secret-key small-secret
    radosgw-admin -n client.rgw quota set --uid small --quota-scope bucket --max-objects 3
    radosgw-admin -n client.rgw quota enable --uid small --quota-scope bucket
} >>setup.log 2>&1
for _ in $(seq 240); do
    if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo ready
        cat >/dev/null
        exit 0
    fi
    sleep 0.25
done
echo "the gateway did not come up" >&2
exit 1

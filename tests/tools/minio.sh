# shellcheck shell=bash
# The MinIO server of the object store tests, built from its Go module. `tests/run` sources this; `die` is its.
minio=$PWD/target/tools/minio/minio
if [ ! -x "$minio" ]; then
    command -v go >/dev/null ||
        die "MinIO cannot be built: there is no Go toolchain (1.24 or newer, https://go.dev/dl); its tests would fail"
    echo "building MinIO with go install (some minutes)"
    mkdir -p "${minio%/*}"
    (cd / && GOBIN=${minio%/*} GOFLAGS=-p=2 CGO_ENABLED=0 nice go install github.com/minio/minio@latest) \
        >"${minio%/*}/build.log" 2>&1 ||
        { tail -n 5 "${minio%/*}/build.log" >&2; die "MinIO cannot be built: go install refused it"; }
fi

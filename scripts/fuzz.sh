#!/bin/sh
# Runs fuzz targets for FUZZ_SECONDS (600) each: those named, or all. Needs a nightly toolchain and cargo-fuzz. What a run
# learns is kept in fuzz/corpus/TARGET, what it finds in fuzz/artifacts/TARGET; neither belongs in the repository.
set -eu

cd "$(dirname "$0")/.."
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: a nightly toolchain is missing: rustup toolchain install nightly" >&2
    exit 1
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "fuzz: cargo-fuzz is missing: cargo +nightly install cargo-fuzz --locked" >&2
    exit 1
fi
# The target `settings` writes a file for each input.
[ -d /dev/shm ] && export TMPDIR=/dev/shm
[ $# -gt 0 ] || set -- $(cargo +nightly fuzz list --fuzz-dir fuzz)
for target; do
    echo "fuzz: $target"
    mkdir -p "fuzz/corpus/$target"
    # New inputs go to the first directory; the seeds are only read. 16 KiB hold every construct the readers know, and
    # larger inputs make a run slow rather than thorough.
    cargo +nightly fuzz run --fuzz-dir fuzz "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="${FUZZ_SECONDS:-600}" -max_len=16384 -timeout=20 -rss_limit_mb=2048
done

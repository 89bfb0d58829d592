#!/bin/sh
# Runs each fuzz target for FUZZ_SECONDS (600). Needs a nightly toolchain and cargo-fuzz.
set -eu

if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 1
fi
found=
for directory in fuzz */fuzz; do
    [ -f "$directory/Cargo.toml" ] || continue
    for target in $(cargo +nightly fuzz list --fuzz-dir "$directory"); do
        found=yes
        echo "fuzz: $directory: $target"
        cargo +nightly fuzz run --fuzz-dir "$directory" "$target" -- \
            -max_total_time="${FUZZ_SECONDS:-600}" -rss_limit_mb=2048
    done
done
[ -n "$found" ] || { echo "fuzz: no target found" >&2; exit 1; }

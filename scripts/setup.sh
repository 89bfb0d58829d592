#!/bin/sh
# Installs what a build needs and this machine lacks: cmake (zlib-ng, aws-lc) and a C compiler with its headers.
# Asks for root only when something is missing.
set -eu

missing=
command -v cmake >/dev/null 2>&1 || missing="$missing cmake"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
command -v make >/dev/null 2>&1 || missing="$missing make"

if ! command -v cargo >/dev/null 2>&1; then
    echo "setup: cargo is missing; install Rust first: https://rustup.rs" >&2
    exit 1
fi
# shellcheck disable=SC2086 # a list of words
exec sh "$(dirname "$0")/install.sh" $missing

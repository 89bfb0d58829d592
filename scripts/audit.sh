#!/bin/sh
# Judges the dependencies by deny.toml: what may come into the build, under which licence, from where, and whether an advisory
# speaks against it. Needs cargo-deny; the advisories also need the network.
set -eu

cd "$(dirname "$0")/.."
if ! cargo deny --version >/dev/null 2>&1; then
    echo "audit: cargo-deny is missing: cargo install cargo-deny --locked" >&2
    exit 1
fi
cargo deny --locked check bans licenses sources
if ! cargo deny --locked check advisories; then
    echo "audit: an advisory was found, or its database (github.com/rustsec/advisory-db) could not be fetched: see above" >&2
    exit 1
fi

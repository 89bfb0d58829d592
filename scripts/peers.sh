#!/bin/sh
# Installs what the tests call the gateway with, and put behind it: grpcio from PyPI and Connect's clients from npm, into a directory of
# their own beside the build; and from Debian what that needs (python3-venv, npm), and faketime, which sets clocks wrong. Tests that do
# not find it say so and are skipped, but not in CI.
set -eu

cd "$(dirname "$0")/.."
peers="${CARGO_TARGET_DIR:-target}/peers"
mkdir -p "$peers"
missing=
python3 -c 'import ensurepip' >/dev/null 2>&1 || missing="$missing python3-venv"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing faketime"
# shellcheck disable=SC2086 # a list of words
sh scripts/install.sh $missing || echo "peers: going on without:$missing" >&2
if command -v python3 >/dev/null 2>&1; then
    if ! cmp -s tests/peers/requirements.txt "$peers/requirements.txt"; then
        echo "peers: installing grpcio and its reflection"
        python3 -m venv --clear "$peers/venv"
        "$peers/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/peers/requirements.txt
        cp tests/peers/requirements.txt "$peers/requirements.txt"
    fi
else
    echo "peers: no python3, so no grpcio" >&2
fi
if command -v npm >/dev/null 2>&1; then
    if ! cmp -s tests/peers/package.json "$peers/npm/package.json"; then
        echo "peers: installing Connect's clients"
        mkdir -p "$peers/npm"
        cp tests/peers/package.json "$peers/npm/package.json.new"
        mv "$peers/npm/package.json.new" "$peers/npm/package.json"
        npm install --silent --no-audit --no-fund --prefix "$peers/npm" || { rm -f "$peers/npm/package.json"; exit 1; }
    fi
else
    echo "peers: no npm, so no Connect" >&2
fi

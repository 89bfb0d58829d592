#!/bin/sh
# Installs Debian packages: those named. Asks for root only here; says what to do where it cannot.
set -eu

[ $# -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: please install: $*" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    root=
elif command -v sudo >/dev/null 2>&1; then
    root=sudo
else
    echo "setup: please run as root: apt-get install -y $*" >&2
    exit 1
fi
echo "setup: installing $*"
$root apt-get update -q
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"

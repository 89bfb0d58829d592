#!/usr/bin/env python3
"""What Tollgate costs, beside nginx, HAProxy and bare pingora, interleaved in one run.

The questions, the method and how to read the answers: benches/README.md. Needs nginx, haproxy, wrk and h2load; valgrind for
counting instructions.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from proxies import PROXIES, Stage, another
import fleet
import rpc
from tables import TABLES as ONE, missing

TABLES = ONE | fleet.TABLES | rpc.TABLES
HERE = Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"which of {', '.join(TABLES)} (all)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (5)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, interleaved (5)")
    parser.add_argument("--connections", type=int, default=32, help="connections at full load (32)")
    parser.add_argument("--workers", default="1,2", help="numbers of workers for `cpu` (1,2)")
    parser.add_argument("--rate", type=int, default=2000, help="requests per second for `latency` (2000)")
    parser.add_argument("--idle", type=int, default=1000, help="connections to hold for `memory` (1000)")
    parser.add_argument("--only", default="", help=f"proxies beside nginx, by comma (all of {', '.join(PROXIES)})")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME=PATH", help="another build of Tollgate to measure too")
    specs = f"{HERE.parent}/openapi-specs/bookstore.yaml,{HERE.parent.parent}/shared/specs/github.json"
    parser.add_argument("--specs", default=specs, help="OpenAPI files for `admit`, by comma; absent ones are left out")
    options = parser.parse_args()
    unknown = set(options.tables) - set(TABLES)
    if unknown:
        parser.error(f"no such table: {' '.join(unknown)}")
    for build in options.beside:
        another(*build.split("=", 1))
    if not os.access(os.environ.get("TOLLGATE", ""), os.X_OK):
        sys.exit("TOLLGATE must name the release binary; `make bench` does that")
    if absent := missing():
        sys.exit(f"missing: {' '.join(absent)}\n"
                 "apt-get install nginx-light haproxy wrk nghttp2-client openssl valgrind; cargo build --release --examples")
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        directory = Path(name)
        # nginx drops its rights where it can: its worker has to get at its files.
        directory.chmod(0o755)
        stage = Stage(directory)
        try:
            for table in options.tables or TABLES:
                TABLES[table](stage, options)
        finally:
            for service in stage.services:
                service.stop()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""CPU per request, memory and cold start of Tollgate beside nginx and HAProxy, interleaved in one run.

The question, the method and how to read the answer: benches/README.md. Needs nginx, haproxy and wrk; nothing else.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PATIENCE = 30
BODY = b"x" * 1024
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree(root):
    """Process ids of `root` and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, grown = {root}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def cpu_seconds(root):
    """User and system time of a process tree, its ended children included."""
    total = 0
    for process in tree(root):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
        if process == root:
            total += int(fields[13]) + int(fields[14])
    return total / TICKS


def memory_mib(root):
    """Proportional set size of a process tree: shared pages are counted once."""
    total = 0
    for process in tree(root):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))
    return total / 1024


def ask(port, path="/v1/books/1"):
    """Status of one request, 0 where there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode())
            return int(stream.recv(4096).split(b" ", 2)[1])
    except (OSError, IndexError, ValueError):
        return 0


class Server:
    """A process group that serves on a port and ends with its owner."""

    def __init__(self, name, port, command, directory):
        self.name, self.port = name, port
        self.log = open(directory / f"{name}.log", "wb")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        while ask(port) != 200:
            if self.process.poll() is not None or time.monotonic() - begun > PATIENCE:
                self.stop()
                sys.exit(f"{name} does not serve:\n" + Path(self.log.name).read_text(errors="replace"))
            time.sleep(0.002)
        self.cold_start = time.monotonic() - begun

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


def nginx_upstream(directory):
    port = free_port()
    (directory / "body").mkdir()
    (directory / "upstream.conf").write_text(f"""
daemon off; worker_processes 1; pid {directory}/upstream.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/body;
  fastcgi_temp_path {directory}/body; uwsgi_temp_path {directory}/body; scgi_temp_path {directory}/body;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 '{BODY.decode()}'; }} }} }}
""")
    return Server("upstream", port, [shutil.which("nginx"), "-c", str(directory / "upstream.conf")], directory)


def nginx(directory, upstream, workers, _operations):
    port = free_port()
    conf = directory / "nginx.conf"
    conf.write_text(f"""
daemon off; worker_processes {workers}; pid {directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 16384; }}
http {{ access_log {directory}/nginx-access.log; keepalive_requests 100000000; keepalive_timeout 600;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/body;
  fastcgi_temp_path {directory}/body; uwsgi_temp_path {directory}/body; scgi_temp_path {directory}/body;
  upstream service {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} reuseport;
    location /v1/ {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }} }} }}
""")
    return Server("nginx", port, [shutil.which("nginx"), "-c", str(conf)], directory)


def haproxy(directory, upstream, workers, _operations):
    port = free_port()
    conf = directory / "haproxy.cfg"
    conf.write_text(f"""
global
    nbthread {workers}
    maxconn 4000
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option forwardfor
    http-reuse always
    timeout connect 1s
    timeout client 600s
    timeout server 60s
    timeout http-keep-alive 600s
frontend traffic
    bind 127.0.0.1:{port}
    acl bookstore path_beg /v1/
    use_backend service if bookstore
backend service
    server one 127.0.0.1:{upstream}
""")
    return Server("haproxy", port, [shutil.which("haproxy"), "-db", "-f", str(conf)], directory)


def tollgate(directory, upstream, workers, operations):
    port, admin = free_port(), free_port()
    spec = directory / f"spec-{operations}.yaml"
    paths = [f"  /r{n}/{{id}}:\n    get: {{ operationId: op{n}, responses: {{ '200': {{ description: ok }} }} }}"
             for n in range(operations - 1)]
    paths.append("  /books/{book}:\n    get: { operationId: getBook, responses: { '200': { description: ok } } }")
    spec.write_text("openapi: 3.1.0\ninfo: { title: Bench, version: '1' }\nservers: [{ url: /v1 }]\npaths:\n"
                    + "\n".join(paths) + "\n")
    name = "tollgate" if operations == 1 else f"tollgate/{operations}"
    state = directory / f"state-{port}"
    command = [os.environ["TOLLGATE"], "gateway", "--spec", str(spec), "--upstream", f"http://127.0.0.1:{upstream}",
               "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", "--workers", str(workers),
               "--state-dir", str(state), "--access-log", str(directory / "tollgate-access.log")]
    server = Server(name.replace("/", "-"), port, command, directory)
    server.name = name
    return server


PROXIES = [
    ("nginx", nginx, 1),
    ("haproxy", haproxy, 1),
    ("tollgate", tollgate, 1),
    ("tollgate/1000", tollgate, 1000),
    ("tollgate/10000", tollgate, 10000),
]


def load(server, seconds, connections, threads):
    """CPU µs per request, requests per second, p99 in ms."""
    url = f"http://127.0.0.1:{server.port}/v1/books/1"
    before = cpu_seconds(server.process.pid)
    done = subprocess.run(["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", url],
                          capture_output=True, text=True, check=True, timeout=seconds + PATIENCE).stdout
    spent = cpu_seconds(server.process.pid) - before
    if "Non-2xx" in done or "Socket errors" in done:
        sys.exit(f"{server.name} failed requests:\n{done}")
    requests = int(re.search(r"(\d+) requests in", done).group(1))
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", done).groups()
    return spent / requests * 1e6, requests / seconds, float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def cpu_table(directory, upstream, workers, options):
    servers = []
    try:
        for _, make, operations in PROXIES:
            servers.append(make(directory, upstream.port, workers, operations))
        results = {server.name: [] for server in servers}
        for server in servers:
            load(server, 1, options.connections, 1)
        for turn in range(options.rounds):
            # Each round begins with another one, so that none always follows the same neighbour.
            for server in servers[turn % len(servers):] + servers[:turn % len(servers)]:
                results[server.name].append(load(server, options.seconds, options.connections, 1))
    finally:
        for server in servers:
            server.stop()
    print(f"\nCPU per request, {workers} worker(s), {options.rounds} rounds of {options.seconds} s, "
          f"{options.connections} connections, 1 KiB answers, access log on")
    print(f"{'':16}{'µs/request':>12}{'spread':>16}{'x nginx':>10}{'requests/s':>12}{'p99 ms':>9}")
    base = statistics.median(cost for cost, _, _ in results["nginx"])
    for name, rounds in results.items():
        costs = [cost for cost, _, _ in rounds]
        cost = statistics.median(costs)
        rate, p99 = (statistics.median(column) for column in list(zip(*rounds))[1:])
        spread = f"{min(costs):.1f}-{max(costs):.1f}"
        print(f"{name:16}{cost:12.1f}{spread:>16}{cost / base:10.2f}{rate:12.0f}{p99:9.2f}")


def memory_table(directory, upstream, connections):
    print(f"\nMemory (PSS) and cold start, one worker; {connections} idle connections that made one request each")
    print(f"{'':16}{'idle MiB':>10}{'MiB per 1,000':>15}{'cold start ms':>15}")
    for name, make, operations in PROXIES:
        starts = []
        for _ in range(3):
            server = make(directory, upstream.port, 1, operations)
            starts.append(server.cold_start)
            if len(starts) < 3:
                server.stop()
        held = []
        try:
            time.sleep(1)
            idle = memory_mib(server.process.pid)
            for _ in range(connections):
                stream = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                stream.sendall(b"GET /v1/books/1 HTTP/1.1\r\nhost: bench\r\n\r\n")
                answer = b""
                while not answer.endswith(BODY):
                    more = stream.recv(65536)
                    if not more:
                        sys.exit(f"{name} closed a connection")
                    answer += more
                held.append(stream)
            time.sleep(1)
            each = (memory_mib(server.process.pid) - idle) / connections * 1000
        finally:
            for stream in held:
                stream.close()
            server.stop()
        print(f"{name:16}{idle:10.1f}{each:15.2f}{statistics.median(starts) * 1000:15.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (5)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each, interleaved (5)")
    parser.add_argument("--connections", type=int, default=32, help="wrk's connections (32)")
    parser.add_argument("--workers", default="1,2", help="numbers of workers to measure with (1,2)")
    parser.add_argument("--idle", type=int, default=900, help="idle connections to hold, per address limit 1,000 (900)")
    parser.add_argument("--only", default="", help="names to measure beside nginx, by comma (all)")
    options = parser.parse_args()
    missing = [tool for tool in ("nginx", "haproxy", "wrk") if not shutil.which(tool)]
    if missing:
        sys.exit(f"missing: {' '.join(missing)} (apt-get install nginx-light haproxy wrk)")
    if not os.access(os.environ.get("TOLLGATE", ""), os.X_OK):
        sys.exit("TOLLGATE must name the release binary; `make bench` does that")
    if options.only:
        PROXIES[:] = [proxy for proxy in PROXIES if proxy[0] in {"nginx", *options.only.split(",")}]
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        directory = Path(name)
        # nginx drops its rights where it can: its worker has to get at its files.
        directory.chmod(0o755)
        upstream = nginx_upstream(directory)
        try:
            for workers in options.workers.split(","):
                cpu_table(directory, upstream, int(workers), options)
            memory_table(directory, upstream, options.idle)
        finally:
            upstream.stop()


if __name__ == "__main__":
    main()

"""What a flood costs: `TOLLGATE=target/release/tollgate python3 benches/flood.py`.

One worker before an nginx; calls of 64 connections without a pause are its capacity, those of 640 the flood. By CPU: calls served per second
of the gateway's own time, in the flood ÷ before it. Then what a refusal takes beside a served call. Not part of `run.py`: there any answer but
2xx ends a run. Needed: nginx, wrk.
"""

import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time
import urllib.request

CAPACITY, FLOOD, SECONDS, ROUNDS = 64, 640, 4, 3
SPEC = "openapi: 3.1.0\ninfo: { title: t, version: '1' }\npaths: { /it: { get: { operationId: it } } }\n"
NGINX = """daemon off; user root; worker_processes 1; pid {home}/nginx.pid; error_log /dev/null;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; server {{ listen 127.0.0.1:{port}; location / {{ return 200 "fine"; }} }} }}
"""
LIMITS = "limits: [{ name: one, amount: 1, window: 1d, per: everybody }]\n"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(home):
    """nginx and a gateway before it: the processes, and the ports for calls and administration."""
    upstream, port, admin, control = (free_port() for _ in range(4))
    (home / "nginx.conf").write_text(NGINX.format(home=home, port=upstream))
    (home / "apis").mkdir()
    (home / "it.yaml").write_text(SPEC)
    for name, more in (("open", ""), ("limited", LIMITS)):
        api = f"spec: ../it.yaml\nupstream: http://127.0.0.1:{upstream}\nbase_path: /{name}\n{more}"
        (home / f"apis/{name}.yaml").write_text(api)
    (home / "tollgate.yaml").write_text(f"listeners: [{{ address: 127.0.0.1:{port} }}]\nworkers: 1\n")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    nginx = subprocess.Popen(["nginx", "-c", home / "nginx.conf", "-p", home], **quiet)
    gateway = subprocess.Popen([
        os.environ["TOLLGATE"], "gateway", "--config", home, "--admin", f"127.0.0.1:{admin}", "--state-dir", home / "state",
        "--control-api", f"127.0.0.1:{control}", "--access-log", home / "access.log"], **quiet)
    for _ in range(100):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=1)
            break
        except OSError:
            time.sleep(0.1)
    return (nginx, gateway), port, admin


def load(port, admin, path, connections):
    """Calls that were served, calls that were refused, and the gateway's CPU seconds."""
    def cpu():
        page = urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5).read().decode()
        return float(re.search(r"(?m)^process_cpu_seconds_total (\S+)", page)[1])
    before = cpu()
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}", f"http://127.0.0.1:{port}{path}"]
    said = subprocess.run(wrk, stdout=subprocess.PIPE, text=True, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    refused = int(refused[1]) if refused else 0
    return int(re.search(r"(\d+) requests in", said)[1]) - refused, refused, cpu() - before


def main():
    with tempfile.TemporaryDirectory() as directory:
        processes, port, admin = start(pathlib.Path(directory))
        try:
            for _ in range(ROUNDS):
                served, _, took = load(port, admin, "/open/it", CAPACITY)
                flooded, refused, spent = load(port, admin, "/open/it", FLOOD)
                print(f"{served / SECONDS:.0f} a second, {took / served * 1e6:.0f} µs each; in the flood {flooded / SECONDS:.0f} served and "
                      f"{refused / SECONDS:.0f} refused: {flooded / served:.2f} by time, {flooded / spent / served * took:.2f} by CPU")
            for what, path in (("served", "/open/it"), ("404", "/open/nothing"), ("429", "/limited/it")):
                served, refused, took = load(port, admin, path, 16)
                print(f"{what}: {took / (served + refused) * 1e6:.0f} µs")
        finally:
            for process in processes:
                process.terminate()
                process.wait()


main()

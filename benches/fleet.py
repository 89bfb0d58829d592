"""What a sidecar costs, alone and in an installation: a control plane, a gateway at the edge and a sidecar before the service.

All processes of an installation count as one proxy: CPU and memory are those of control plane, gateway and sidecar together, unless a row
names one of them.
"""

import json
import os
import statistics
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import load
from processes import Server, ask, free_port, memory_mib
from proxies import PROXIES, nginx
from tables import STEADY_CONNECTIONS, head, rounds, row
from tokens import limited

SPEC = """openapi: 3.1.0
info: { title: Bench, version: '1' }
servers: [{ url: /v1 }]
paths:
  /books/{book}:
    get: { operationId: getBook, responses: { '200': { description: ok } } }
"""
# With a key or without: the same operation serves both questions.
KEYED = SPEC + """components: { securitySchemes: { key: { type: apiKey, in: header, name: x-api-key } } }
security: [{}, { key: [] }]
"""
# High enough that nobody is refused.
PLANS = """plans:
  bench:
    apis: { bench: all }
    limits: [{ name: calls-per-day, amount: 100000000000, window: 1d }]
"""
CONSUMERS = """organisations:
  bench: { projects: { bench: { consumers: { bench: { subscriptions: { bench: bench } } } } } }
"""
GATEWAY = "limits: { keep_alive: 600s, connections_per_address: 20000, requests_per_connection: 1000000000 }\n"
ASKED = 'tollgate_directory_lookups_total{result="asked"}'
# More than this is no look into memory.
WAITED_US = 1000


def alone(stage, _workers, cpu, _operations):
    """A sidecar with a spec and no control plane."""
    port, admin = free_port(), free_port()
    home = stage.directory / f"sidecar-{port}"
    home.mkdir()
    (home / "bench.yaml").write_text(SPEC)
    command = [os.environ["TOLLGATE"], "sidecar", "--spec", home / "bench.yaml", "--app", f"http://127.0.0.1:{stage.port}",
               "--security", "off", "--inbound", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}",
               "--state-dir", home / "state", "--access-log", home / "access.log"]
    return stage.start("sidecar", port, command, cpu)


class Installation:
    """Control plane, gateway and sidecar; entered at the gateway or at the sidecar, with a key or without."""

    def __init__(self, stage, cpu, more=()):
        """`more`: consumers beside the one, and their keys' secrets."""
        self.stage, self.cpu = stage, cpu
        self.home = stage.directory / f"installation-{free_port()}"
        config = self.home / "config"
        (config / "apis").mkdir(parents=True)
        (config / "bench.yaml").write_text(KEYED)
        (config / "apis/bench.yaml").write_text("spec: ../bench.yaml\nservice: bench\nupstream: service://bench\n")
        (config / "plans.yaml").write_text(PLANS)
        (config / "consumers.yaml").write_text(CONSUMERS + self.many(more))
        (self.home / "gateway").mkdir()
        (self.home / "gateway/tollgate.yaml").write_text(GATEWAY)
        self.nodes, self.api = free_port(), free_port()
        state = self.home / "control"
        self.servers = []
        try:
            self.control = self.begin("control", self.api, "/v1/health", [
                "control", "--config", config, "--nodes", f"127.0.0.1:{self.nodes}", "--control-api", f"127.0.0.1:{self.api}",
                "--state-dir", state])
            self.credential = (state / "admin-credential").read_text().strip()
            self.key, secret = self.new_key("bench")
            self.field = f"x-api-key: {secret}"
            self.sidecar_admin, self.gateway_admin = free_port(), free_port()
            inbound, outbound, edge = free_port(), free_port(), free_port()
            self.sidecar = self.begin("sidecar-joined", inbound, "/v1/books/1", [
                "sidecar", "--service", "bench", "--app", f"http://127.0.0.1:{stage.port}", *self.joining(service="bench"),
                "--inbound", f"127.0.0.1:{inbound}", "--outbound", f"127.0.0.1:{outbound}",
                "--admin", f"127.0.0.1:{self.sidecar_admin}", "--state-dir", self.home / "s1",
                "--access-log", self.home / "sidecar.log"])
            self.access = self.home / "gateway.log"
            self.gateway = self.begin("gateway-joined", edge, "/v1/books/1", [
                "gateway", "--config", self.home / "gateway", *self.joining(gateway="edge"), "--listen", f"127.0.0.1:{edge}",
                "--admin", f"127.0.0.1:{self.gateway_admin}", "--state-dir", self.home / "g1", "--workers", 1,
                "--access-log", self.access])
        except BaseException:
            self.stop()
            raise

    def many(self, more):
        """An organisation of so many consumers; each has a key, whose secret lies in a file."""
        secrets = self.home / "secrets"
        secrets.mkdir()
        lines = []
        for name, secret in more:
            (secrets / name).write_text(secret)
            lines.append(f"      {name}: {{ subscriptions: {{ bench: bench }}, keys: [{{ name: {name}, secret: 'file:{secrets / name}' }}] }}\n")
        return "  many:\n    projects:\n     many:\n      consumers:\n" + "".join(f"  {it}" for it in lines) if lines else ""

    def begin(self, name, port, path, words):
        server = Server(name, port, [os.environ["TOLLGATE"], *words], self.home, path, self.cpu, self.stage.patience,
                        host=f"127.0.0.1:{port}")
        self.servers.append(server)
        return server

    def ask(self, method, path, body):
        """The control plane's HTTP API."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.api}{path}", json.dumps(body).encode(), method=method, headers={
            "authorization": f"Bearer {self.credential}", "content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def joining(self, **what):
        token = self.home / f"{'-'.join(what)}.token"
        token.write_text(self.ask("POST", "/v1/join-tokens", what)["token"])
        return ["--control", f"https://127.0.0.1:{self.nodes}", "--join-token-file", token, "--node", next(iter(what))]

    def new_key(self, consumer):
        made = self.ask("POST", f"/v1/consumers/{consumer}/keys", {})
        return made["id"], made["secret"]

    def metrics(self, admin):
        """The metrics without labels, and those with, by the text before the value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        split = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in split}

    def stop(self):
        for server in self.servers:
            server.stop()


class Entry:
    """An installation as one proxy, entered at one of its ports."""

    def __init__(self, name, installation, server, field=""):
        self.name, self.installation, self.field, self.port, self.other_ports = name, installation, field, server.port, {}

    def cpu_seconds(self):
        return tuple(sum(parts) for parts in zip(*(server.cpu_seconds() for server in self.installation.servers)))

    def stop(self):
        self.installation.stop()


def proxies(stage, *others):
    """nginx, bare pingora, a sidecar alone, and one installation entered in four ways."""
    made = {}

    def entry(name, at, keyed):
        def make(_stage, _workers, cpu, _operations):
            # One for all entries: what is idle in it costs each the same.
            it = made["it"] = made.get("it") or Installation(stage, cpu)
            return Entry(name, it, getattr(it, at), it.field if keyed else "")
        return make, 1

    found = {name: PROXIES[name] for name in ("nginx", "pingora")} | {"sidecar": (alone, 1)} | dict(others)
    for name, at, keyed in [("joined", "sidecar", False), ("joined+limit", "sidecar", True),
                            ("edge>sidecar", "gateway", False), ("edge>side+limit", "gateway", True)]:
        found[name] = entry(name, at, keyed)
    return found


def sidecar(stage, options):
    peers = [(name, way) for name, way in limited(stage.directory).items() if name.startswith("envoy")]
    results = rounds(stage, options, 1, proxies(stage, *peers),
                     lambda server: load.full(server, options.seconds, options.connections))
    head(f"CPU per request of a sidecar: one worker, {options.rounds} rounds of {options.seconds} s, {options.connections} connections "
         f"(load of the machine: {os.getloadavg()[0]:.1f})", "µs", "least", "most", "x nginx", "x pingora", "user µs", "requests/s")
    for name, measured in results.items():
        costs, users, rates = zip(*measured)
        ratios = [statistics.median(cost / base for cost, (base, _, _) in zip(costs, results[rival])) for rival in ("nginx", "pingora")]
        row(name, f"{statistics.median(costs):.1f}", f"{min(costs):.1f}", f"{max(costs):.1f}", *(f"{ratio:.2f}" for ratio in ratios),
            f"{statistics.median(users):.1f}", f"{statistics.median(rates):.0f}")


def sidecar_latency(stage, options):
    log = stage.directory / "latencies"
    results = rounds(stage, options, 1, proxies(stage), lambda server: load.steady(
        server, options.seconds, options.rate, STEADY_CONNECTIONS, log))
    head(f"Latency of a sidecar at {options.rate} requests/s: one worker, {options.rounds} rounds of {options.seconds} s, "
         f"{STEADY_CONNECTIONS} connections (load of the machine: {os.getloadavg()[0]:.1f})", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs")
    for name, measured in results.items():
        row(name, *(f"{statistics.median(load.percentile(one, share) for one in measured):.0f}" for share in (50, 90, 99, 99.9)))


# Until what only the start needed is given back.
SETTLED = 5


def sidecar_memory(stage, options):
    kinds = ("Pss", "Rss", "Private_Dirty", "Shared_Clean")
    seen = {}

    def look(name, server):
        seen.setdefault(name, []).append([memory_mib(server.pid, kind) for kind in kinds])

    for _ in range(options.rounds):
        for name, make in [("nginx", nginx), ("pingora", PROXIES["pingora"][0]), ("sidecar", alone)]:
            server = make(stage, 1, None, 1)
            time.sleep(SETTLED)
            look(name, server)
            server.stop()
        it = Installation(stage, None)
        time.sleep(SETTLED)
        for name in ("sidecar", "gateway", "control"):
            look(f"{name}, joined", getattr(it, name))
        it.stop()
    head(f"Memory, idle, {SETTLED} s after the start; median of {options.rounds}", "PSS MiB", "most", "RSS MiB", "own, dirty", "shared")
    for name, measured in seen.items():
        middle = [statistics.median(values) for values in zip(*measured)]
        row(name, f"{middle[0]:.1f}", f"{max(one[0] for one in measured):.1f}", *(f"{value:.1f}" for value in middle[1:]))


# One consumer at one node.
RATE, STREAMS, LONG = 200, 10, 30


def waits(stage, options):
    """How many calls had to wait for the control plane."""
    head(f"Calls that waited for the control plane: one consumer, {RATE} requests/s, {LONG} s, one limit a day", "calls", "identify >1ms",
         "reserve >1ms", "share", "asked", "frames/s", "longest µs")
    for _ in range(options.rounds):
        it = Installation(stage, None)
        try:
            before = it.metrics(it.gateway_admin)
            begun = time.monotonic()
            subprocess.run(["h2load", "--h1", "-c", str(STREAMS), f"--rps={RATE / STREAMS}", "-D", str(LONG), "-H", it.field,
                            f"http://127.0.0.1:{it.gateway.port}/v1/books/1"], check=True, capture_output=True, timeout=LONG + 30)
            after, took = it.metrics(it.gateway_admin), time.monotonic() - begun
            time.sleep(1)
            records = [json.loads(line) for line in it.access.read_text().splitlines()]
        finally:
            it.stop()
        # The first are those that asked whether it serves, without a key.
        steps = [record["steps"] for record in records if "reserve_us" in record["steps"]]
        identified, reserved = ([step.get(name, 0) for step in steps] for name in ("identify_us", "reserve_us"))
        waited = sum(max(pair) > WAITED_US for pair in zip(identified, reserved))
        moved = {name: after[name] - before.get(name, 0) for name in after}
        row("gateway", len(steps), sum(us > WAITED_US for us in identified), sum(us > WAITED_US for us in reserved),
            f"{waited / len(steps):.5f}", f"{moved[ASKED]:.0f}",
            f"{moved['tollgate_control_frames_total'] / took:.1f}", f"{max(identified + reserved):.0f}")


def revoked(stage, options):
    """From the answer to a revocation to the first refusal, at a gateway that is called all the time."""
    it = Installation(stage, None)
    times = []
    try:
        for _ in range(20):
            key, secret = it.new_key("bench")
            field = f"x-api-key: {secret}"
            while ask(it.gateway.port, "/v1/books/1", field) != 200:
                time.sleep(0.01)
            begun = time.monotonic()
            it.ask("POST", f"/v1/keys/{key}/revoke", {})
            answered = time.monotonic()
            while ask(it.gateway.port, "/v1/books/1", field) == 200:
                pass
            ended = time.monotonic()
            times.append((answered - begun, ended - answered, ended - begun))
    finally:
        it.stop()
    head("From revoking a key to its first refusal at the edge, 20 times; called without a pause", "p50 ms", "most ms")
    for name, values in zip(["the answer", "then refused", "in all"], zip(*times)):
        row(name, f"{statistics.median(values) * 1000:.1f}", f"{max(values) * 1000:.1f}")


MANY = 10_000
# Who calls at once.
CALLING = 16


def callers(stage, _options):
    """Memory of a gateway and a sidecar that know many consumers."""
    keys = [(f"consumer-{number}", f"secret-of-consumer-{number:06}") for number in range(MANY)]
    it = Installation(stage, None, keys)
    nodes = {"gateway": (it.gateway, it.gateway_admin), "sidecar": (it.sidecar, it.sidecar_admin)}

    def first_call(port, secret):
        while ask(port, "/v1/books/1", f"x-api-key: {secret}") != 200:
            time.sleep(0.05)

    try:
        time.sleep(SETTLED)
        head(f"Memory with {MANY} consumers that called once", "PSS MiB", "after", "KiB each", "asked")
        before = {name: memory_mib(server.pid) for name, (server, _) in nodes.items()}
        # Each passes the sidecar too, which knows whom the gateway admitted.
        with ThreadPoolExecutor(CALLING) as pool:
            list(pool.map(lambda key: first_call(it.gateway.port, key[1]), keys))
        time.sleep(SETTLED)
        for name, (server, admin) in nodes.items():
            after = memory_mib(server.pid)
            each = (after - before[name]) * 1024 / MANY
            row(name, f"{before[name]:.1f}", f"{after:.1f}", f"{each:.2f}", f"{it.metrics(admin)[ASKED]:.0f}")
    finally:
        it.stop()


TABLES = {"sidecar": sidecar, "sidecar-latency": sidecar_latency, "sidecar-memory": sidecar_memory, "waits": waits,
          "revoked": revoked, "callers": callers}

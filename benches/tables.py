"""The tables of the bench, one function each. Every proxy of a table runs in every round, and every round begins with another."""

import os
import re
import shutil
import statistics
import subprocess
import time

import load
from processes import memory_mib, pin
from proxies import PROXIES, example
from tokens import fresh, judges, limited, many

# Enough connections that at 2,000 requests per second each has 50 ms to itself.
STEADY_CONNECTIONS = 100


def chosen(options, *leave_out):
    wanted = {"nginx", *options.only.split(",")} if options.only else set(PROXIES)
    return {name: made for name, made in PROXIES.items() if name in wanted and name not in leave_out}


def rounds(stage, options, workers, proxies, measure, warm=load.full):
    """`measure(server)` of every proxy in every round, by name."""
    # One worker has a core to itself where there are two; load and service have the others.
    cores = sorted(os.sched_getaffinity(0))
    apart = workers == 1 and len(cores) > 1
    servers = []
    try:
        for make, operations in proxies.values():
            servers.append(make(stage, workers, cores[0] if apart else None, operations))
        if apart:
            os.sched_setaffinity(0, set(cores[1:]))
            for service in stage.services:
                pin(service.pid, set(cores[1:]))
        for server in servers:
            warm(server, 1, options.connections)
        results = {server.name: [] for server in servers}
        for turn in range(options.rounds):
            first = turn % len(servers)
            for server in servers[first:] + servers[:first]:
                results[server.name].append(measure(server))
        return results
    finally:
        os.sched_setaffinity(0, set(cores))
        for server in servers:
            server.stop()


def head(title, *columns):
    print(f"\n{title}\n{'':16}" + "".join(f"{column:>14}" for column in columns), flush=True)


def row(name, *values):
    print(f"{name:16}" + "".join(f"{value:>14}" for value in values), flush=True)


def median_ratio(measured, rival):
    """Of the same round, so that what disturbed one disturbed the other; `-` where there is no rival."""
    return f"{statistics.median(one[0] / other[0] for one, other in zip(measured, rival)):.2f}" if rival else "-"


def cpu(stage, options):
    for workers in map(int, options.workers.split(",")):
        results = rounds(stage, options, workers, chosen(options),
                         lambda server: load.full(server, options.seconds, options.connections))
        head(f"CPU per request: {workers} worker(s), {options.rounds} rounds of {options.seconds} s, "
             f"{options.connections} connections", "µs", "least", "most", "x nginx", "user µs", "requests/s")
        for name, measured in results.items():
            costs, users, rates = zip(*measured)
            # Of the same round, so that what disturbed one disturbed the other.
            ratios = [cost / base for cost, (base, _, _) in zip(costs, results["nginx"])]
            row(name, f"{statistics.median(costs):.1f}", f"{min(costs):.1f}", f"{max(costs):.1f}",
                f"{statistics.median(ratios):.2f}", f"{statistics.median(users):.1f}", f"{statistics.median(rates):.0f}")


def jwt(stage, options):
    judging = judges(stage.directory)
    proxies = {name: PROXIES[name] for name in ("nginx", "tollgate")} | judging
    results = rounds(stage, options, 1, proxies, lambda server: load.full(server, options.seconds, options.connections))
    head(f"CPU per request with a verified token, seen before: one worker, {options.rounds} rounds of {options.seconds} s, "
         f"{options.connections} connections (nginx and the first tollgate: none)", "µs", "least", "most", "x nginx", "x haproxy")
    for name, measured in results.items():
        costs = [cost for cost, _, _ in measured]
        to_nginx = statistics.median(cost / base for cost, (base, _, _) in zip(costs, results["nginx"]))
        rival = results.get(f"haproxy/{name.split('/')[-1]}")
        to_haproxy = rival and statistics.median(cost / base for cost, (base, _, _) in zip(costs, rival))
        row(name, f"{statistics.median(costs):.1f}", f"{min(costs):.1f}", f"{max(costs):.1f}", f"{to_nginx:.2f}",
            f"{to_haproxy:.2f}" if to_haproxy else "-")


# Tokens of one measurement: more than any proxy verifies in its seconds.
FRESH_PER_SECOND = 30_000


def jwt_new(stage, options):
    each = FRESH_PER_SECOND * options.seconds
    key, tokens = many(stage.directory, each * options.rounds)
    proxies = {"nginx": PROXIES["nginx"]} | fresh(key)
    turns = {}

    def measure(server):
        turn = turns[server.name] = turns.get(server.name, -1) + 1
        if server.name == "nginx":
            return load.full(server, options.seconds, options.connections)
        return load.fresh(server, options.seconds, options.connections, tokens, turn * each, each)

    results = rounds(stage, options, 1, proxies, measure)
    head(f"CPU per request with a verified RS256 token that was never seen before: one worker, {options.rounds} rounds of "
         f"{options.seconds} s, {options.connections} connections (nginx: none)", "µs", "least", "most", "x nginx", "x haproxy")
    for name, measured in results.items():
        costs = [cost for cost, _, _ in measured]
        to = [statistics.median(cost / base for cost, (base, _, _) in zip(costs, results[rival])) for rival in ("nginx", "haproxy/RS256")]
        row(name, f"{statistics.median(costs):.1f}", f"{min(costs):.1f}", f"{max(costs):.1f}", *(f"{ratio:.2f}" for ratio in to))


def quota(stage, options):
    proxies = {name: PROXIES[name] for name in ("nginx", "tollgate")} | limited(stage.directory)
    results = rounds(stage, options, 1, proxies, lambda server: load.full(server, options.seconds, options.connections))
    head(f"CPU per request with a verified RS256 token and its caller counted: one worker, {options.rounds} rounds of "
         f"{options.seconds} s, {options.connections} connections (nginx and the first tollgate: neither)", "µs", "least", "most", "x nginx")
    for name, measured in results.items():
        costs = [cost for cost, _, _ in measured]
        to_nginx = statistics.median(cost / base for cost, (base, _, _) in zip(costs, results["nginx"]))
        row(name, f"{statistics.median(costs):.1f}", f"{min(costs):.1f}", f"{max(costs):.1f}", f"{to_nginx:.2f}")


def latency(stage, options):
    log = stage.directory / "latencies"
    results = rounds(stage, options, 1, chosen(options, "tollgate/1000"),
                     lambda server: load.steady(server, options.seconds, options.rate, STEADY_CONNECTIONS, log))
    head(f"Latency at {options.rate} requests/s: one worker, {options.rounds} rounds of {options.seconds} s, "
         f"{STEADY_CONNECTIONS} connections", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs")
    for name, measured in results.items():
        row(name, *(f"{statistics.median(load.percentile(one, share) for one in measured):.0f}"
                    for share in (50, 90, 99, 99.9)))


def memory(stage, options):
    head(f"Memory (PSS), one worker: after start, and what {options.idle} idle connections add that made one request each",
         "idle MiB", *(f"{kind}: KiB each" for kind in load.IDLE))
    for name, (make, operations) in chosen(options).items():
        values = []
        for kind, (port, connect) in load.IDLE.items():
            server = make(stage, 1, None, operations)
            held = []
            try:
                time.sleep(1)
                idle = memory_mib(server.pid)
                values = values or [f"{idle:.1f}"]
                listening = server.port if port == "port" else server.other_ports.get(port)
                if listening is None:
                    values.append("-")
                    continue
                held = [connect(listening) for _ in range(options.idle)]
                time.sleep(1)
                values.append(f"{(memory_mib(server.pid) - idle) / options.idle * 1024:.1f}")
            finally:
                for stream in held:
                    stream.close()
                server.stop()
        row(name, *values)


def start(stage, options):
    proxies = chosen(options)
    times = {name: [] for name in proxies}
    for _ in range(options.rounds):
        for name, (make, operations) in proxies.items():
            server = make(stage, 1, None, operations)
            times[name].append(server.cold_start)
            server.stop()
    head(f"From starting the process to the first 200, {options.rounds} times; one worker", "ms", "least", "most", "CPU ms")
    for name, measured in times.items():
        whole, cpu_ms = zip(*measured)
        row(name, *(f"{pick(whole) * 1000:.0f}" for pick in (statistics.median, min, max)), f"{statistics.median(cpu_ms):.0f}")


def instructions(stage, options):
    """User-space instructions: what no neighbour on the machine disturbs. The kernel's part is not in it."""
    if not shutil.which("valgrind"):
        return print("\ninstructions: skipped, valgrind is missing")
    head("Instructions per request in user space (callgrind)", "instructions", "x nginx")
    base = None
    # Loading a large file goes on beside the first requests and would be counted with them.
    for name, (make, operations) in chosen(options, "tollgate/1000", "tollgate/10000").items():
        counts = stage.directory / "callgrind.out"
        for old in stage.directory.glob("callgrind.out*"):
            old.unlink()
        stage.wrapper, stage.patience = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}"], 300
        try:
            server = make(stage, 1, None, operations)
            load.counted(server, 500)
            control("-z", server.pid)
            load.counted(server, 3000)
            control("-d", server.pid)
            server.stop()
        finally:
            stage.wrapper, stage.patience = [], 30
        total = collected(stage.directory / "callgrind.out.1")
        base = base or total
        row(name, f"{total / 3000:.0f}", f"{total / base:.2f}")


def control(what, pid):
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True)
    time.sleep(0.5)


def collected(dump):
    return int(re.search(r"^(?:summary|totals): (\d+)", dump.read_text(), re.M).group(1))


def admit(stage, options):
    """The journey without sockets, by benches/admit.rs."""
    files = [spec for spec in options.specs.split(",") if os.path.exists(spec)]
    times = 5000
    head(f"Admitting and reporting one request, {times} of them", "ns", "allocations", "instructions")
    for spec in files:
        name = os.path.basename(spec).split(".")[0]
        for modes in ([], ["line"], ["key"], ["key", "line"]):
            if "key" in modes and name != "bookstore":
                continue
            command = [example("admit"), spec, str(times), *modes]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            time_each, allocations = re.search(r"(\d+) ns, ([\d.]+) allocations", told).groups()
            count = "-"
            if shutil.which("valgrind"):
                dump = stage.directory / "admit.out"
                subprocess.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={dump}",
                                "--toggle-collect=admit::admit_all*", *command], check=True, capture_output=True)
                warmed = int(re.search(r"(\d+) operations", told).group(1))
                count = f"{collected(dump) / (times + warmed):.0f}"
            row(", ".join([name, *modes]), time_each, allocations, count)


TABLES = {"cpu": cpu, "jwt": jwt, "jwt-new": jwt_new, "quota": quota, "latency": latency, "memory": memory, "start": start, "instructions": instructions, "admit": admit}


def missing():
    """What the tables cannot do without."""
    tools = [tool for tool in ("nginx", "haproxy", "wrk", "h2load", "nghttp", "openssl") if not shutil.which(tool)]
    return tools + [name for name in ("bare_forward", "admit", "grpc_service") if not example(name).exists()]

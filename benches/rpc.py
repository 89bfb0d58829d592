"""What gRPC costs: REST calls of a gRPC service (Tollgate, Envoy's `grpc_json_transcoder`), and gRPC passed through (nginx, HAProxy too).

All stand before `grpc_service.rs`, which gives the same small message whatever it is asked, and are given the same compiled descriptors,
written here: neither protoc nor a Python package is needed. Envoy only where it is installed.
"""

import functools
import os
import re
import shutil
import statistics
import subprocess
import sys

import load
from processes import PATIENCE, Server, free_port
from proxies import PATH, envoy, example, tollgate
from tables import head, median_ratio, rounds, row

METHOD = "/bench.v1.Books/GetBook"
# gRPC calls of one connection at a time.
STREAMS = 4


def number(value):
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def wire(*fields):
    """A protobuf message of (number, value): a whole number, text, or the bytes of a message."""
    out = b""
    for tag, value in fields:
        if isinstance(value, int):
            out += number(tag << 3) + number(value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += number(tag << 3 | 2) + number(len(value)) + value
    return out


def message(name, *fields):
    """A DescriptorProto of (name, number, label, type, type name)."""
    made = []
    for field, tag, label, kind, *named in fields:
        made.append((2, wire((1, field), (3, tag), (4, label), (5, kind), *((6, f".bench.v1.{name}") for name in named))))
    return wire((1, name), *made)


ONE, MANY = 1, 3
INT64, TEXT, MESSAGE, ENUM = 3, 9, 11, 14
HTTP_RULE = 72295728
# rpc GetBook(GetBookRequest) returns (Book) { option (google.api.http) = { get: "/v1/{name=books/*}" }; }
GET_BOOK = wire((1, "GetBook"), (2, ".bench.v1.GetBookRequest"), (3, ".bench.v1.Book"),
                (4, wire((HTTP_RULE, wire((2, "/v1/{name=books/*}"))))))
DESCRIPTORS = wire((1, wire(
    (1, "bench.proto"), (2, "bench.v1"),
    (4, message("GetBookRequest", ("name", 1, ONE, TEXT))),
    (4, message("Author", ("name", 1, ONE, TEXT))),
    (4, message("Book", ("name", 1, ONE, TEXT), ("title", 2, ONE, TEXT), ("authors", 3, MANY, MESSAGE, "Author"),
                ("price", 4, ONE, INT64), ("format", 5, ONE, ENUM, "Format"), ("tags", 6, MANY, TEXT))),
    (5, wire((1, "Format"), (2, wire((1, "FORMAT_UNSPECIFIED"), (2, 0))), (2, wire((1, "FORMAT_PAPERBACK"), (2, 1))))),
    (6, wire((1, "Books"), (2, GET_BOOK))),
    (12, "proto3"))))
BOOK = wire((1, "books/1"), (2, "Walden; or, Life in the Woods"), (3, wire((1, "Henry David Thoreau"))), (4, 1895), (5, 1),
            *((6, tag) for tag in ("nature", "philosophy", "autobiography", "nineteenth century")))
ASKED = wire((1, "books/1"))


def with_service(stage):
    """Starts the service, once, and leaves beside it what a call sends."""
    if hasattr(stage, "rpc"):
        return
    answer, asked, descriptors = (stage.directory / name for name in ("book", "call", "descriptors.binpb"))
    answer.write_bytes(BOOK)
    asked.write_bytes(b"\0" + len(ASKED).to_bytes(4, "big") + ASKED)
    descriptors.write_bytes(DESCRIPTORS)
    port = free_port()
    service = Server("grpc-service", port, [example("grpc_service"), f"127.0.0.1:{port}", answer], stage.directory, PATH,
                     ready=functools.partial(answers, stage, port))
    stage.services.append(service)
    stage.rpc = port


FIELDS = ("-H", "content-type: application/grpc", "-H", "te: trailers")


def answers(stage, port):
    """Whether a gRPC call comes back with the message and status 0."""
    told = subprocess.run(["nghttp", "-v", *FIELDS, "-d", stage.directory / "call", f"http://127.0.0.1:{port}{METHOD}"],
                          capture_output=True).stdout
    return b":status: 200" in told and b"grpc-status: 0" in told and BOOK in told


def judged(rest, stage):
    """When such a server serves: where REST is asked, what all proxies are asked."""
    return None if rest else functools.partial(answers, stage)


def by_tollgate(name, rest, binary, stage, workers, cpu, operations):
    api = (f"upstream: grpc://127.0.0.1:{stage.rpc}\n"
           f"grpc: {{ descriptors: {stage.directory}/descriptors.binpb, callers: anyone }}\n")
    return tollgate(stage, workers, cpu, operations, name=name, binary=binary, api=api, ready=judged(rest, stage))


def by_envoy(name, rest, stage, workers, cpu, _operations):
    transcoder = {"name": "transcoder", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": f"{stage.directory}/descriptors.binpb", "services": ["bench.v1.Books"], "convert_grpc_status": True}}
    return envoy(stage, workers, cpu, name, [transcoder] if rest else [], upstream=stage.rpc, http2=True,
                 ready=judged(rest, stage))


def by_nginx(stage, workers, cpu, _operations):
    port = free_port()
    servers = (f"upstream books {{ server 127.0.0.1:{stage.rpc}; keepalive 128; keepalive_requests 100000000; }}\n"
               f"server {{ listen 127.0.0.1:{port} http2 reuseport; location / {{ grpc_pass grpc://books; }} }}")
    return stage.nginx("nginx/grpc", workers, f"access_log {stage.directory}/nginx-grpc.log;", servers, cpu, port=port,
                       ready=functools.partial(answers, stage, port))


def by_haproxy(stage, workers, cpu, _operations):
    port = free_port()
    conf = stage.directory / "haproxy-grpc.cfg"
    conf.write_text(f"""
global
    nbthread {workers}
    maxconn 4000
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    http-reuse always
    timeout connect 1s
    timeout client 600s
    timeout server 60s
frontend traffic
    bind 127.0.0.1:{port} proto h2
    default_backend service
backend service
    server one 127.0.0.1:{stage.rpc} proto h2
""")
    return stage.start("haproxy/grpc", port, [shutil.which("haproxy"), "-db", "-f", conf], cpu,
                       ready=functools.partial(answers, stage, port))


def called(server, seconds, connections):
    """As `load.full`, with gRPC calls over HTTP/2: `STREAMS` at a time on each connection."""
    if not server.name.endswith("/grpc"):
        return load.full(server, seconds, connections)
    user_before, system_before = server.cpu_seconds()
    done = subprocess.run(["h2load", "-D", str(seconds), "-c", str(max(connections // STREAMS, 1)), "-m", str(STREAMS), *FIELDS,
                           "-d", server.directory / "call", f"http://127.0.0.1:{server.port}{METHOD}"],
                          capture_output=True, text=True, check=True, timeout=seconds + PATIENCE).stdout
    user, system = server.cpu_seconds()
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done)
    status = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done)
    succeeded, *others = map(int, (*counts.groups(), *status.groups()[1:])) if counts and status else (0,)
    if not succeeded or any(others):
        sys.exit(f"{server.name} failed calls:\n{done}")
    user, system = ((after - before) / succeeded * 1e6 for after, before in [(user, user_before), (system, system_before)])
    return user + system, user, succeeded / seconds


def builds(options, rest):
    """Every build of Tollgate that is measured, by name."""
    end = "rest" if rest else "grpc"
    binaries = {"tollgate": os.environ["TOLLGATE"]} | dict(build.split("=", 1) for build in options.beside)
    return {f"{name}/{end}": (functools.partial(by_tollgate, f"{name}/{end}", rest, binary), 1) for name, binary in binaries.items()}


def envoys(rest):
    name = "envoy/rest" if rest else "envoy/grpc"
    return {name: (functools.partial(by_envoy, name, rest), 1)} if shutil.which("envoy") else {}


NGINX = {"nginx/grpc": (by_nginx, 1)}


def table(stage, options, title, proxies, beside):
    with_service(stage)
    results = rounds(stage, options, 1, proxies, lambda server: called(server, options.seconds, options.connections), called)
    head(f"{title}: one worker, {options.rounds} rounds of {options.seconds} s, {options.connections} at a time (load of the machine: "
         f"{os.getloadavg()[0]:.1f})", "µs", "least", "most", *(f"x {name}" for name in beside), "user µs", "calls/s")
    for name, measured in results.items():
        costs, users, rates = zip(*measured)
        row(name, f"{statistics.median(costs):.1f}", f"{min(costs):.1f}", f"{max(costs):.1f}",
            *(median_ratio(measured, results.get(rival)) for rival in beside),
            f"{statistics.median(users):.1f}", f"{statistics.median(rates):.0f}")


def transcode(stage, options):
    """A REST call of a gRPC service, beside the same call that is gRPC from the start."""
    proxies = NGINX | builds(options, True) | envoys(True) | builds(options, False) | envoys(False)
    table(stage, options, "CPU per REST call of a gRPC method (/rest: GET over HTTP/1.1, answered in JSON; /grpc: passed through)", proxies,
          ("nginx/grpc", "envoy/rest"))


def grpc(stage, options):
    """gRPC passed through, HTTP/2 in cleartext on both sides."""
    proxies = NGINX | {"haproxy/grpc": (by_haproxy, 1)} | builds(options, False) | envoys(False)
    table(stage, options, f"CPU per gRPC call passed through, {STREAMS} at a time on each connection", proxies,
          ("nginx/grpc", "envoy/grpc"))


TABLES = {"transcode": transcode, "grpc": grpc}

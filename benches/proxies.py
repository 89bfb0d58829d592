"""What is measured: the same forward by nginx, HAProxy, bare pingora and Tollgate, before the same nginx.

Each proxy is a function of a `Stage` and gives a running `Server`. They keep connections on both sides, write an access log (bare
pingora has none) and offer TLS (`tls`) and HTTP/2 with prior knowledge (`h2`) where they can.
"""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path

from processes import PATIENCE, Server, free_port

PATH = "/v1/books/1"
BODY = b"x" * 1024


class Stage:
    """What all proxies of a run share: a directory, certificates, the service behind them, and how they are started."""

    def __init__(self, directory):
        self.directory, self.wrapper, self.patience = directory, [], PATIENCE
        (directory / "tmp").mkdir()
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "1", "-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench",
                        "-out", self.cert, "-keyout", self.key], check=True, capture_output=True)
        (directory / "both.pem").write_text(self.cert.read_text() + self.key.read_text())
        self.port = free_port()
        self.service = self.nginx("service", 1, "access_log off;",
                                  f"server {{ listen 127.0.0.1:{self.port}; location / {{ return 200 '{BODY.decode()}'; }} }}",
                                  port=self.port)
        self.services = [self.service]

    def nginx(self, name, workers, log, servers, cpu=None, **ports):
        plain = name.replace("/", "-")
        conf = self.directory / f"{plain}.conf"
        temporary = "".join(f"{kind}_temp_path {self.directory}/tmp; "
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        # One process under a tool that follows only one.
        master = "master_process off;" if self.wrapper else f"worker_processes {workers};"
        conf.write_text(f"daemon off; {master} pid {self.directory}/{plain}.pid; error_log stderr crit;\n"
                        f"events {{ worker_connections 16384; }}\n"
                        f"http {{ {log} keepalive_requests 100000000; keepalive_timeout 600; {temporary}\n{servers} }}\n")
        return self.start(name, ports.pop("port"), [shutil.which("nginx"), "-c", conf], cpu, **ports)

    def start(self, name, port, command, cpu, **ports):
        return Server(name, port, [*self.wrapper, *command], self.directory, PATH, cpu, self.patience, **ports)


def nginx(stage, workers, cpu, _operations):
    port, tls, h2 = free_port(), free_port(), free_port()
    server = "\n".join(f"""server {{ listen 127.0.0.1:{listen}; {more}
        location /v1/ {{ proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
          proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }} }}""" for listen, more in [
        (f"{port} reuseport", ""), (f"{tls} ssl", f"ssl_certificate {stage.cert}; ssl_certificate_key {stage.key};"),
        (f"{h2} http2", "")])
    upstream = f"upstream service {{ server 127.0.0.1:{stage.port}; keepalive 128; keepalive_requests 100000000; }}\n"
    return stage.nginx("nginx", workers, f"access_log {stage.directory}/nginx-access.log;", upstream + server, cpu,
                       port=port, tls=tls, h2=h2)


def haproxy(stage, workers, cpu, _operations, name="haproxy", judge="", field=""):
    port, tls, h2 = free_port(), free_port(), free_port()
    conf = stage.directory / f"{name.replace('/', '-')}.cfg"
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
    bind 127.0.0.1:{tls} ssl crt {stage.directory}/both.pem
    bind 127.0.0.1:{h2} proto h2
    {judge}
    acl bookstore path_beg /v1/
    use_backend service if bookstore
backend callers
    stick-table type string len 64 size 100k expire 1m store http_req_rate(60s)
backend service
    server one 127.0.0.1:{stage.port}
""")
    return stage.start(name, port, [shutil.which("haproxy"), "-db", "-f", conf], cpu, tls=tls, h2=h2, field=field)


def bare(stage, workers, cpu, _operations):
    port = free_port()
    command = [example("bare_forward"), f"127.0.0.1:{port}", f"127.0.0.1:{stage.port}", workers]
    return stage.start("pingora", port, command, cpu)


def tollgate(stage, workers, cpu, operations, name="tollgate", binary=None, security="", auth="", field="", files=None,
             api=None, ready=None):
    port, tls, admin = free_port(), free_port(), free_port()
    home = stage.directory / f"tollgate-{port}"
    (home / "apis").mkdir(parents=True)
    paths = [f"  /r{n}/{{id}}:\n    get: {{ operationId: op{n}, responses: {{ '200': {{ description: ok }} }} }}\n"
             for n in range(operations - 1)]
    paths.append("  /books/{book}:\n    get: { operationId: getBook, responses: { '200': { description: ok } } }\n")
    paths.append(security)
    (home / "bench.yaml").write_text("openapi: 3.1.0\ninfo: { title: Bench, version: '1' }\n"
                                     "servers: [{ url: /v1 }]\npaths:\n" + "".join(paths))
    (home / "apis/bench.yaml").write_text(api or f"spec: ../bench.yaml\nupstream: http://127.0.0.1:{stage.port}\n{auth}")
    (home / "tollgate.yaml").write_text(f"""
listeners:
  - address: 127.0.0.1:{port}
  - address: 127.0.0.1:{tls}
    tls: {{ certificates: [{{ cert: {stage.cert}, key: {stage.key} }}] }}
admin: 127.0.0.1:{admin}
control: {{ api: off }}
workers: {workers}
state_dir: {home}/state
access_log: {home}/access.log
limits: {{ keep_alive: 600s, connections_per_address: 20000, requests_per_connection: 1000000000 }}
""")
    for file, content in (files or {}).items():
        (home / file).write_text(content)
    (home / "state").mkdir()
    name = name if operations == 1 else f"{name}/{operations}"
    command = [binary or os.environ["TOLLGATE"], "gateway", "--config", home]
    # Cleartext listeners know HTTP/2 by its preface.
    return stage.start(name, port, command, cpu, tls=tls, h2=port, field=field, ready=ready and functools.partial(ready, port))


def envoy(stage, workers, cpu, name, filters, upstream=None, http2=False, field="", ready=None):
    """Envoy with these filters before its router; by HTTP/2 to the service where it speaks that."""
    port, plain = free_port(), name.replace("/", "-")
    extensions = "type.googleapis.com/envoy.extensions"
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream or stage.port}}
    cluster = {"name": "service", "type": "STATIC", "load_assignment": {"cluster_name": "service", "endpoints": [
        {"lb_endpoints": [{"endpoint": {"address": address}}]}]}}
    if http2:
        cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{extensions}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}}
    config = {"static_resources": {
        "listeners": [{"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [{"filters": [{
            "name": "http", "typed_config": {
                "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "bench", "access_log": [{"name": "file", "typed_config": {
                    "@type": f"{extensions}.access_loggers.file.v3.FileAccessLog", "path": f"{stage.directory}/{plain}.access"}}],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                    {"match": {"prefix": "/"}, "route": {"cluster": "service"}}]}]},
                "http_filters": [*filters, {"name": "router", "typed_config": {"@type": f"{extensions}.filters.http.router.v3.Router"}}],
            }}]}]}],
        "clusters": [cluster]}}
    conf = stage.directory / f"{plain}.json"
    conf.write_text(json.dumps(config))
    command = [shutil.which("envoy"), "-c", conf, "--concurrency", workers, "--log-level", "error", "--use-dynamic-base-id"]
    return stage.start(name, port, command, cpu, field=field, ready=ready and functools.partial(ready, port))


PROXIES = {
    "nginx": (nginx, 1),
    "haproxy": (haproxy, 1),
    "pingora": (bare, 1),
    "tollgate": (tollgate, 1),
    "tollgate/1000": (tollgate, 1000),
    "tollgate/10000": (tollgate, 10000),
}


def another(name, binary):
    """Another build of Tollgate beside the first."""
    PROXIES[name] = (functools.partial(tollgate, name=name, binary=binary), 1)


def example(name):
    """A program of benches/, built beside the binary under measurement (or where TOLLGATE_EXAMPLES says)."""
    beside = Path(os.environ["TOLLGATE"]).parent / "examples"
    return Path(os.environ.get("TOLLGATE_EXAMPLES", beside)) / name

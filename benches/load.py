"""Load: wrk as fast as it goes, h2load at a fixed rate, and connections that are held and do nothing."""

import re
import socket
import ssl
import statistics
import struct
import subprocess
import sys

from processes import PATIENCE
from proxies import BODY, PATH


# Each request with another token, from a line on.
FRESH = """local tokens, at = {}, 0
function init(words)
  local number = 0
  for line in io.lines(words[1]) do
    number = number + 1
    if number > tonumber(words[2]) then tokens[#tokens + 1] = line end
    if #tokens >= tonumber(words[3]) then break end
  end
end
function request()
  at = at % #tokens + 1
  wrk.headers["Authorization"] = "Bearer " .. tokens[at]
  return wrk.format()
end
"""


def fresh(server, seconds, connections, tokens, begin, count):
    """As `full`, with tokens of a file: `count` of them from `begin` on. Ends the bench where they do not suffice."""
    script = tokens.with_suffix(".lua")
    script.write_text(FRESH)
    cost, user, rate = full(server, seconds, connections, ["-s", str(script)], [str(tokens), str(begin), str(count)])
    if rate * seconds > count:
        sys.exit(f"{server.name} took {rate * seconds:.0f} tokens of {count}: some were seen twice")
    return cost, user, rate


def full(server, seconds, connections, before=(), after=()):
    """CPU µs per request, its user part, and requests per second, at full load."""
    user_before, system_before = server.cpu_seconds()
    field = ["-H", server.field] if server.field and not before else []
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *field, *before,
                           f"http://127.0.0.1:{server.port}{PATH}", *(["--", *after] if after else [])],
                          capture_output=True, text=True, check=True, timeout=seconds + PATIENCE).stdout
    user, system = server.cpu_seconds()
    if "Non-2xx" in done or "Socket errors" in done:
        sys.exit(f"{server.name} failed requests:\n{done}")
    requests = int(re.search(r"(\d+) requests in", done).group(1))
    if not requests:
        sys.exit(f"{server.name} answered nothing within {seconds} s")
    user, system = ((after - before) / requests * 1e6 for after, before in [(user, user_before), (system, system_before)])
    return user + system, user, requests / seconds


def counted(server, requests, connections=8):
    """Exactly so many requests."""
    done = subprocess.run(["h2load", "--h1", "-n", str(requests), "-c", str(connections),
                           f"http://127.0.0.1:{server.port}{PATH}"], capture_output=True, text=True, check=True).stdout
    if f" {requests} succeeded" not in done:
        sys.exit(f"{server.name} failed requests:\n{done}")


def steady(server, seconds, rate, connections, log):
    """Latencies in µs at `rate` requests per second in all."""
    log.unlink(missing_ok=True)
    # Every connection sends on its own beat; at ten times the latency between two beats hardly any has to wait for its turn.
    field = ["-H", server.field] if server.field else []
    subprocess.run(["h2load", "--h1", "-c", str(connections), f"--rps={rate / connections}", "-D", str(seconds),
                    "--warm-up-time=1", f"--log-file={log}", *field, f"http://127.0.0.1:{server.port}{PATH}"],
                   capture_output=True, text=True, check=True, timeout=seconds + PATIENCE)
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    failed = [row for row in rows if row[1] != "200"]
    if failed or not rows:
        sys.exit(f"{server.name}: {len(failed)} of {len(rows)} requests failed")
    return [int(row[2]) for row in rows]


def percentile(values, share):
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 10) - 1]


def idle_h1(port):
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    ask_h1(stream)
    return stream


def idle_tls(port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), server_hostname="bench")
    ask_h1(stream)
    return stream


def ask_h1(stream):
    stream.sendall(f"GET {PATH} HTTP/1.1\r\nhost: bench\r\n\r\n".encode())
    answer = b""
    while not answer.endswith(BODY):
        more = stream.recv(65536)
        if not more:
            sys.exit("a connection was closed")
        answer += more


def idle_h2(port):
    """One request over HTTP/2 with prior knowledge (RFC 9113), written by hand: fields without Huffman coding or table."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    fields = b"\x82\x86" + b"".join(bytes([index, len(text)]) + text for index, text in [(4, PATH.encode()), (1, b"bench")])
    stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 5, 1, fields))
    received = b""
    while True:
        while len(received) < 9 or len(received) < 9 + int.from_bytes(received[:3], "big"):
            more = stream.recv(65536)
            if not more:
                sys.exit("a connection was closed")
            received += more
        length, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
        number = int.from_bytes(received[5:9], "big")
        received = received[9 + length:]
        if kind == 4 and not flags & 1:
            stream.sendall(frame(4, 1, 0, b""))
        if kind in (0, 1) and number == 1 and flags & 1:
            return stream


def frame(kind, flags, number, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", number) + payload


IDLE = {"h1": ("port", idle_h1), "tls": ("tls", idle_tls), "h2": ("h2", idle_h2)}

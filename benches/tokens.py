"""The same forward behind a verified token: HAProxy (`jwt_verify`, no cache), Envoy (`jwt_authn` with its token cache), Tollgate.

One token a run, so that a cache that there is counts. Keys and tokens are made with openssl.
"""

import base64
import functools
import hashlib
import hmac
import json
import shutil
import subprocess
import time

from proxies import envoy, haproxy, tollgate

ISSUER = "https://id.bench"
SECRET = b"0123456789abcdef0123456789abcdef"


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*words, data=None):
    return subprocess.run(["openssl", *map(str, words)], input=data, check=True, capture_output=True).stdout


def raw(der):
    """The two numbers of an ECDSA signature, each in 32 bytes (RFC 7518, section 3.4)."""
    numbers, at = b"", 2
    for _ in range(2):
        length = der[at + 1]
        numbers += der[at + 2:at + 2 + length].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + length
    return numbers


class Key:
    """A key of one algorithm: what signs with it, and what the proxies are given to verify."""

    def __init__(self, directory, algorithm):
        self.algorithm, self.private = algorithm, directory / f"{algorithm}.key"
        self.public, self.jwks = directory / f"{algorithm}.pub", directory / f"{algorithm}.json"
        named = {"kid": algorithm, "alg": algorithm, "use": "sig"}
        if algorithm == "HS256":
            self.private.write_bytes(SECRET)
            key = {"kty": "oct", "k": text(SECRET), **named}
        elif algorithm == "RS256":
            openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.private)
            modulus = openssl("rsa", "-in", self.private, "-noout", "-modulus").decode().strip().split("=")[1]
            key = {"kty": "RSA", "n": text(bytes.fromhex(modulus)), "e": "AQAB", **named}
        else:
            openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.private)
            point = openssl("pkey", "-in", self.private, "-pubout", "-outform", "DER")[-64:]
            key = {"kty": "EC", "crv": "P-256", "x": text(point[:32]), "y": text(point[32:]), **named}
        if algorithm != "HS256":
            openssl("pkey", "-in", self.private, "-pubout", "-out", self.public)
        self.jwks.write_text(json.dumps({"keys": [key]}))

    def message(self, number=None):
        now = int(time.time())
        header = {"alg": self.algorithm, "typ": "JWT", "kid": self.algorithm}
        claims = {"iss": ISSUER, "aud": "books", "sub": "bench", "azp": "bench", "iat": now, "exp": now + 7200, "scope": "books:read"}
        if number is not None:
            claims["jti"] = str(number)
        return ".".join(text(json.dumps(part).encode()) for part in (header, claims))

    def token(self):
        message = self.message()
        if self.algorithm == "HS256":
            signature = hmac.new(SECRET, message.encode(), hashlib.sha256).digest()
        else:
            signature = openssl("dgst", "-sha256", "-sign", self.private, data=message.encode())
        return f"{message}.{text(raw(signature) if self.algorithm == 'ES256' else signature)}"


def many(directory, count):
    """So many RS256 tokens that differ, a line each; needs python3-cryptography: a process per signature would take minutes."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    key = Key(directory, "RS256")
    private = serialization.load_pem_private_key(key.private.read_bytes(), None)
    tokens = directory / "tokens"
    with tokens.open("w") as file:
        for number in range(count):
            message = key.message(number)
            signature = private.sign(message.encode(), padding.PKCS1v15(), hashes.SHA256())
            file.write(f"{message}.{text(signature)}\n")
    return key, tokens


def by_haproxy(key, field, stage, workers, cpu, operations, name="haproxy", limit=""):
    verifier = SECRET.decode() if key.algorithm == "HS256" else key.public
    judge = f"""http-request set-var(txn.token) http_auth_bearer
    http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_header_query('$.alg') -m str {key.algorithm} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.iss') -m str {ISSUER} }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.aud') -m str books }}
    http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify("{key.algorithm}","{verifier}") 1 }}
    {limit}"""
    return haproxy(stage, workers, cpu, operations, name=f"{name}/{key.algorithm}", judge=judge, field=field)


def by_envoy(key, field, stage, workers, cpu, _operations, name="envoy", limits=()):
    judge = {"name": "jwt", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"bench": {"issuer": ISSUER, "audiences": ["books"], "jwt_cache_config": {"jwt_cache_size": 1000},
                                "local_jwks": {"inline_string": key.jwks.read_text()}}},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}]}}
    return envoy(stage, workers, cpu, f"{name}/{key.algorithm}", [judge, *limits], field=field)


def by_tollgate(key, field, stage, workers, cpu, operations, name="tollgate", files=None):
    security = ("components: { securitySchemes: { token: { type: http, scheme: bearer } } }\n"
                "security: [{ token: ['books:read'] }]\n")
    keys = f"secret: 'file:{key.private}'" if key.algorithm == "HS256" else f"jwks: {key.jwks}"
    auth = (f"auth:\n  issuers:\n    bench: {{ issuer: '{ISSUER}', audiences: [books], algorithms: [{key.algorithm}], "
            f"{keys} }}\n")
    return tollgate(stage, workers, cpu, operations, name=f"{name}/{key.algorithm}", security=security, auth=auth, field=field,
                    files=files)


# High enough that nobody is refused: what is measured is counting.
PLANS = """plans:
  bench:
    apis: { bench: all }
    limits:
      - { name: per-second, amount: 1000000, window: 1s }
      - { name: per-minute, amount: 60000000, window: 1m }
      - { name: per-month, amount: 100000000000, window: month }
"""
CONSUMERS = f"""organisations:
  bench:
    projects:
      bench:
        consumers:
          bench:
            logins: [{{ issuer: "{ISSUER}", client: bench }}]
            subscriptions: {{ bench: bench }}
"""


def limited(directory):
    """A verified token, and its caller counted: Tollgate against three limits, with a usage record; the others against one."""
    key = Key(directory, "RS256")
    field = f"Authorization: Bearer {key.token()}"
    table = """http-request track-sc0 var(txn.token),jwt_payload_query('$.azp') table callers
    http-request deny deny_status 429 if { sc_http_req_rate(0,callers) gt 60000000 }"""
    bucket = {"name": "limit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 1000000, "tokens_per_fill": 1000000, "fill_interval": "1s"},
        "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
        "filter_enforced": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}}}
    files = {"plans.yaml": PLANS, "consumers.yaml": CONSUMERS}
    ways = {
        "haproxy": functools.partial(by_haproxy, key, field, name="haproxy+limit", limit=table),
        "envoy": functools.partial(by_envoy, key, field, name="envoy+limit", limits=(bucket,)),
        "tollgate": functools.partial(by_tollgate, key, field, name="tollgate+limits", files=files),
    }
    if not shutil.which("envoy"):
        del ways["envoy"]
    return {f"{name}+limit/RS256": (way, 1) for name, way in ways.items()}


def fresh(key):
    """Every proxy, for tokens none of which was seen before."""
    field = f"Authorization: Bearer {key.token()}"
    ways = {"haproxy": by_haproxy, "envoy": by_envoy, "tollgate": by_tollgate}
    if not shutil.which("envoy"):
        del ways["envoy"]
    return {f"{name}/RS256": (functools.partial(way, key, field), 1) for name, way in ways.items()}


def judges(directory):
    """Every proxy for every algorithm, by name; Envoy only where it is installed."""
    made = {}
    for algorithm in ("RS256", "ES256", "HS256"):
        key = Key(directory, algorithm)
        field = f"Authorization: Bearer {key.token()}"
        ways = {"haproxy": by_haproxy, "envoy": by_envoy, "tollgate": by_tollgate}
        if not shutil.which("envoy"):
            del ways["envoy"]
        for name, way in ways.items():
            made[f"{name}/{algorithm}"] = (functools.partial(way, key, field), 1)
    return made

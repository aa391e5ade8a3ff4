"""The attack cases as data: what is sent, and why it must be refused.

`<path>` stands for a metered route of each dialect in turn; `<key>` and the like for secrets of the
gateway under attack. Numbers in brackets are the rows of the threat model that a case comes from.
"""

from __future__ import annotations

import gzip
import json
from typing import Final

from attrs import frozen

from authz.types import Dialect

PATHS: Final = {
    Dialect.OLLAMA: "/api/chat",
    Dialect.OPENAI: "/v1/chat/completions",
    Dialect.ANTHROPIC: "/v1/messages",
}
STATUSES: Final = {
    "target_invalid": 400,
    "path_mutation": 403,
    "path_unknown": 404,
    "method_not_allowed": 405,
    "credential_conflict": 400,
    "key_missing": 401,
    "key_unknown": 401,
    "key_revoked": 401,
    "body_not_json": 400,
    "body_duplicate_field": 400,
    "body_field": 400,
    "body_too_deep": 400,
    "body_too_large": 413,
    "body_encoding": 415,
    "model_missing": 400,
    "model_not_allowed": 404,
    "model_unknown": 404,
}
KEY: Final = "Authorization: Bearer <key>"
NARROW: Final = "Authorization: Bearer <narrow>"
CHAT: Final = json.dumps(
    {
        "model": "demo",
        "stream": False,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "tokens=2"}],
    }
).encode()
MAX_BODY_BYTES: Final = 32 << 20


@frozen
class Attack:
    """One request that must be refused; a body of None is announced by its headers and never comes."""

    name: str
    reason: str
    headers: tuple[str, ...] = (KEY,)
    line: str = "POST <path>"
    body: bytes | None = CHAT

    def dialects(self) -> tuple[Dialect, ...]:
        """The dialects to attack in: all, or that of a fixed target."""
        if "<path>" in self.line:
            return tuple(PATHS)
        target = self.line.split(" ", 1)[1]
        if target.startswith("/v1/messages"):
            return (Dialect.ANTHROPIC,)
        return (Dialect.OPENAI if target.startswith("/v1/") else Dialect.OLLAMA,)

    def data(self, dialect: Dialect, secrets: dict[str, str]) -> bytes:
        """The bytes to send."""
        lines = [f"{self.line} HTTP/1.1", "Host: gateway", *self.headers]
        if self.body and not any(line.startswith(("Content-Length", "Transfer-")) for line in lines):
            lines.append(f"Content-Length: {len(self.body)}")
        head = "\r\n".join([*lines, "", ""]).replace("<path>", PATHS[dialect])
        for name, secret in secrets.items():
            head = head.replace(f"<{name}>", secret)
        return head.encode("latin-1") + (self.body or b"")


def _json(name: str, reason: str, body: bytes | str) -> Attack:
    return Attack(name, reason, body=body if isinstance(body, bytes) else body.encode())


def _nested(levels: int) -> bytes:
    return b'{"model":"demo","x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


CREDENTIALS: Final = (
    Attack("no key [A1]", "key_missing", headers=()),
    Attack("empty Authorization [A2]", "key_missing", headers=("Authorization:",)),
    Attack("scheme alone [A2]", "key_missing", headers=("Authorization: Bearer ",)),
    Attack("key alone", "key_missing", headers=("Authorization: <key>",)),
    Attack("another scheme", "key_missing", headers=("Authorization: Token <key>",)),
    Attack("malformed key [A3]", "key_missing", headers=("Authorization: Bearer sk-123",)),
    Attack("truncated key [A3]", "key_missing", headers=("Authorization: Bearer <truncated>",)),
    Attack("one character more [A3]", "key_missing", headers=(KEY + "x",)),
    Attack("key in lower case [A3]", "key_missing", headers=("Authorization: Bearer <lowered>",)),
    Attack("key of nobody [A4]", "key_unknown", headers=("Authorization: Bearer <stranger>",)),
    Attack("handle of a key, other secret [A5]", "key_unknown", headers=("Authorization: Bearer <forged>",)),
    Attack("revoked key [A16]", "key_revoked", headers=("Authorization: Bearer <revoked>",)),
    Attack("two spaces [A13]", "key_missing", headers=("Authorization: Bearer  <key>",)),
    Attack("tab [A13]", "key_missing", headers=("Authorization: Bearer\t<key>",)),
    Attack("two keys in a line [A8]", "key_missing", headers=("Authorization: Bearer x, Bearer <key>",)),
    Attack("bytes that are no text [A12]", "key_missing", headers=("Authorization: Bearer nz_\xff\xfe",)),
    Attack("8 KiB of token [A12]", "key_missing", headers=(f"Authorization: Bearer nz_{'a' * 8192}",)),
    Attack("SQL [A12]", "key_missing", headers=("Authorization: Bearer ' OR '1'='1",)),
    Attack("broken Basic", "key_missing", headers=("Authorization: Basic !!!",)),
    Attack("key in a cookie", "key_missing", headers=("Cookie: key=<key>",)),
    Attack("key in a query", "key_missing", headers=(), line="POST <path>?key=<key>&api_key=<key>"),
    Attack("underscores for dashes", "key_missing", headers=("X_Api_Key: <key>",)),
    Attack("probe of a load balancer [A18]", "key_missing", headers=("User-Agent: kube-probe/1.30",)),
    Attack("good, then another [A6]", "credential_conflict", headers=(KEY, "Authorization: Bearer <narrow>")),
    Attack("carriers that differ [A14]", "credential_conflict", headers=(KEY, "X-Api-Key: <narrow>")),
    Attack("forged Grant [E7]", "key_missing", headers=("X-Nz-Grant: {}", "X-Nz-Tenant: x")),
    Attack("websocket [H1]", "key_missing", headers=("Connection: Upgrade", "Upgrade: websocket")),
)

BODIES: Final = (
    _json("broken JSON", "body_not_json", '{"model":'),
    _json("no body", "body_not_json", b""),
    _json("a list", "body_not_json", '[{"model":"demo"}]'),
    _json("byte order mark", "body_not_json", b"\xef\xbb\xbf" + CHAT),
    _json("UTF-16", "body_not_json", CHAT.decode().encode("utf-16")),
    _json("invalid UTF-8", "body_not_json", CHAT.replace(b"tokens", b"\xc0\xaf")),
    _json("trailing data [J2]", "body_not_json", CHAT + b'{"model":"demo2"}'),
    _json("comment", "body_not_json", CHAT + b"// demo"),
    _json("NaN", "body_not_json", '{"model":"demo","temperature":NaN}'),
    _json("model twice [J1]", "body_duplicate_field", '{"model":"demo","model":"demo2"}'),
    _json("model in two cases [J1]", "body_duplicate_field", '{"model":"demo","MODEL":"demo2"}'),
    _json("option twice", "body_duplicate_field", '{"model":"demo","options":{"top_k":1,"TOP_K":2}}'),
    _json("case variant of model [J1]", "body_field", '{"Model":"demo"}'),
    _json("escaped model [J3]", "body_field", '{"mod\\u0065l":"demo"}'),
    _json("model and its escape [J3]", "body_field", '{"model":"demo","mod\\u0065l":"demo2"}'),
    _json("long s in stream [J3]", "body_field", '{"model":"demo","\u017ftream":true}'),
    _json("Kelvin in keep_alive [J3]", "body_field", '{"model":"demo","\u212aeep_alive":0}'),
    _json("model of a wrong type", "body_field", '{"model":["demo"]}'),
    _json("model of 257 bytes", "body_field", json.dumps({"model": "m" * 257})),
    _json("129 levels", "body_too_deep", _nested(129)),
    _json("10,000 levels", "body_too_deep", _nested(10_000)),
    _json("no model", "model_missing", "{}"),
    _json("empty model", "model_missing", '{"model":""}'),
    _json("model of nobody", "model_unknown", '{"model":"no-such-model"}'),
    _json("cloud model [J6]", "model_not_allowed", '{"model":"demo:cloud"}'),
    _json("cloud model in upper case [J6]", "model_not_allowed", '{"model":"demo:20b-CLOUD"}'),
    Attack("gzip [J5]", "body_encoding", (KEY, "Content-Encoding: gzip"), body=gzip.compress(CHAT)),
    Attack("zstd [J5]", "body_encoding", (KEY, "Content-Encoding: zstd"), body=b"(\xb5/\xfd"),
    Attack("identity", "body_encoding", (KEY, "Content-Encoding: identity")),
)

MODELS: Final = tuple(
    Attack(
        f"{name} for a key of demo alone [J6]",
        "model_not_allowed",
        (NARROW,),
        body=json.dumps({"model": name}).encode(),
    )
    for name in (
        "demo2",
        "DEMO2:latest",
        "library/demo2",
        "registry.ollama.ai/library/demo2:latest",
        "demo:7b",
        "x/demo",
        "../demo",
        " demo2 ",
    )
)

UNSENT: Final = (
    Attack("no key", "key_missing", ("Content-Length: 500000",), body=None),
    Attack("no key, chunks", "key_missing", ("Transfer-Encoding: chunked",), body=None),
    Attack("no key, a first byte", "key_missing", ("Content-Length: 500000",), body=b"{"),
    Attack("no key, a first chunk", "key_missing", ("Transfer-Encoding: chunked",), body=b"1\r\n{\r\n"),
    Attack("malformed key", "key_missing", ("X-Api-Key: x", "Content-Length: 500000"), body=None),
    Attack(
        "two keys",
        "credential_conflict",
        (KEY, "X-Api-Key: <narrow>", "Content-Length: 500000"),
        body=None,
    ),
    Attack("wrong method", "method_not_allowed", (KEY, "Content-Length: 9"), "PUT <path>", None),
    Attack("unknown path", "path_unknown", (KEY, "Content-Length: 9"), "POST <path>/x", None),
    Attack("mutation", "path_mutation", (KEY, "Content-Length: 9"), "POST /api/pull", None),
    Attack("strange target", "target_invalid", (KEY, "Content-Length: 9"), "POST //api/pull", None),
    Attack("too large", "body_too_large", (KEY, f"Content-Length: {MAX_BODY_BYTES + 1}"), body=None),
    Attack("gzip", "body_encoding", (KEY, "Content-Encoding: gzip", "Content-Length: 9"), body=None),
    Attack("expecting [F12]", "key_missing", ("Expect: 100-continue", "Content-Length: 9"), body=None),
    Attack(
        "expecting too much",
        "body_too_large",
        (KEY, "Expect: 100-continue", "Content-Length: 99999999"),
        body=None,
    ),
)


def _target(name: str, reason: str, line: str) -> Attack:
    return Attack(name, reason, line=line, body=b"")


TARGETS: Final = (
    *(
        _target(line, "target_invalid", line)
        for line in (
            "GET x:http://a/healthz",
            "GET x:http://a/readyz",
            "GET x:http://a/metrics",
            "GET x:http://a/verify",
            "POST x:/api/chat",
            "GET x:verify",
            "GET mailto:x",
            "GET http://a/healthz",
            "POST http://gateway/api/chat",
            "POST *",
            "GET *",
            "CONNECT a:443",
            "GET //a/healthz",
            "GET /healthz%20",
            "GET /api/tags;x=1",
            "GET /v1/models/%2e%2e",
            "GET /v1/messages/../models",
        )
    ),
    *(
        _target(line, "path_unknown", line)
        for line in (
            "GET /verify",
            "GET /schema",
            "GET /metrics",
            "GET /debug/pprof/",
            "GET /config/",
            "POST /load",
            "POST /API/CHAT",
            f"GET /v1/models/{'m' * 161}",
            "POST /v1/nope",
            "POST /v1/audio/transcriptions",
            "GET /test/tally",
            f"GET /{'a' * 20_000}",
        )
    ),
    *(
        _target(line, "method_not_allowed", line)
        for line in (
            "GET /api/chat",
            "PUT /api/chat",
            "OPTIONS /api/chat",
            "CONNECT /api/tags",
            "POST /api/tags",
            "POST /healthz",
            "DELETE /",
            "HEAD /api/ps",
            "post /api/chat",
            "GET /v1/chat/completions",
            "DELETE /v1/models/demo",
            "PATCH /v1/messages",
        )
    ),
)

ATTACKS: Final = {
    f"{group}: {attack.name} {dialect}": (attack, dialect)
    for group, attacks in (
        ("credential", CREDENTIALS),
        ("body", BODIES),
        ("model", MODELS),
        ("unsent", UNSENT),
        ("target", TARGETS),
    )
    for attack in attacks
    for dialect in attack.dialects()
}

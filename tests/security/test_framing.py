"""The boundary between two requests, and what a client may not slip in with its own.

G1: no byte reaches a backend without a Grant of the same id, however requests are framed.
"""

from __future__ import annotations

from typing import Final

import pytest
from attrs import frozen

from tests.gateway import Gateway
from tests.security import wire
from tests.security.attacks import CHAT
from tests.security.observed import Hit, Witness

HOST: Final = "Host: gateway\r\n"
PULL: Final = f"POST /api/pull HTTP/1.1\r\n{HOST}Content-Length: 2\r\n\r\n{{}}".encode()
OURS: Final = (
    "x-nz-ask",
    "x-nz-grant",
    "x-nz-denial",
    "x-forwarded-uri",
    "x-forwarded-method",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-http-method-override",
    "authorization",
    "x-api-key",
    "api-key",
    "cookie",
    "proxy-authorization",
    "upgrade",
    "http2-settings",
    "te",
    "trailer",
    "expect",
    "origin",
    "via",
)
"""Headers that no backend may see, whoever sent them."""


def chat(gateway: Gateway, *headers: str, key: str | None = None, body: bytes = CHAT) -> bytes:
    """A chat with a valid key, or another, and more headers."""
    lines = [f"Authorization: Bearer {key or gateway.key}", *headers, f"Content-Length: {len(body)}"]
    return f"POST /api/chat HTTP/1.1\r\n{HOST}".encode() + "\r\n".join([*lines, "", ""]).encode() + body


def chunked(gateway: Gateway, *headers: str, body: bytes = CHAT, end: bytes = b"0\r\n\r\n") -> bytes:
    """The same chat in one chunk."""
    lines = [f"Authorization: Bearer {gateway.key}", *headers, "Transfer-Encoding: chunked"]
    head = f"POST /api/chat HTTP/1.1\r\n{HOST}" + "\r\n".join([*lines, "", ""])
    return head.encode() + (f"{len(body):x}\r\n".encode() + body + b"\r\n" if body else b"") + end


@pytest.fixture
def only_hit(witness: Witness) -> _Only:
    """Report what reached the backend, which must be one request."""
    witness.forget()
    return _Only(witness)


@frozen
class _Only:
    witness: Witness

    def __call__(self) -> Hit:
        (hit,) = self.witness.hits()
        return hit


FORGED: Final = {
    "our messages [E7]": (
        'X-Nz-Ask: {"v":1,"id":"forged"}',
        'X-Nz-Grant: {"v":1}',
        "X-Nz-Denial: x",
        "X-Nz-Z: x",
    ),
    "hop by hop [E5]": ("Connection: X-Nz-Ask, Authorization", "Keep-Alive: 1", "Proxy-Connection: close"),
    "hop by hop, ours [E6]": ("Connection: close, X-Nz-Grant, Content-Length, X-Request-Id",),
    "forwarded [E1, E2, E9]": (
        "X-Forwarded-Uri: /api/pull",
        "X-Forwarded-Method: GET",
        "X-Forwarded-Prefix: /api/pull",
        "X-Forwarded-For: 192.0.2.1, a",
        "X-Forwarded-Host: evil",
        "X-Real-Ip: 192.0.2.1",
        "Forwarded: for=192.0.2.1",
    ),
    "method override [C7]": (
        "X-HTTP-Method-Override: DELETE",
        "X-Method-Override: GET",
        "X-HTTP-Method: PUT",
    ),
    "upgrade to h2c [H4]": (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABk",
    ),
    "websocket [H1]": ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    "cookies and more": (
        "Cookie: a=b",
        "Proxy-Authorization: Basic eDp4",
        "TE: trailers",
        "Origin: http://evil",
    ),
    "encodings [K7]": ("Accept-Encoding: gzip, br, zstd", "Via: 1.1 evil", "X_Nz_Grant: x"),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_headers_change_nothing(
    gateway: Gateway, witness: Witness, only_hit: _Only, name: str
) -> None:
    """A request with a valid key is served as if it had none of these, and none goes further."""
    reply = wire.ask(gateway.url, chat(gateway, *FORGED[name]))
    assert 200 == reply.status
    assert [] == [header for header in reply.headers if header.startswith("x-nz-")]
    hit = only_hit()
    assert ("POST", "/api/chat", CHAT.decode()) == (hit.method, hit.target, hit.body)
    assert set() == hit.names() & set(OURS)
    assert [] == [header for header in hit.names() if header.startswith(("x-nz", "x_nz", "x-forwarded"))]
    (row,) = witness.settled([reply.request_id]).values()
    assert ("completed", "127.0.0.1", "reported") == (row.outcome, row.ip, row.usage_source)
    assert row.tenant is not None


def test_good_then_bad_in_one_write(gateway: Gateway, only_hit: _Only) -> None:
    """F10: of two pipelined requests each is judged by its own key."""
    with wire.line(gateway.url) as line:
        line.send(chat(gateway) + chat(gateway, key="nz_x"))
        assert [200, 401] == [line.read().status, line.read().status]
    only_hit()


def test_one_key_in_two_carriers(gateway: Gateway, only_hit: _Only) -> None:
    """Clients that send their key in two ways at once are understood; neither reaches the backend."""
    reply = wire.ask(gateway.url, chat(gateway, f"X-Api-Key: {gateway.key}", f"Api-Key: {gateway.key}"))
    assert 200 == reply.status
    assert set() == only_hit().names() & set(OURS)


@pytest.mark.usefixtures("untouched")
def test_bad_then_good_in_one_write(gateway: Gateway) -> None:
    """F10: a refused body that was not read ends the connection, with whatever comes after it."""
    with wire.line(gateway.url) as line:
        reply = line.ask(chat(gateway, key="nz_x") + chat(gateway))
        assert (401, True) == (reply.status, reply.is_last)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "headers",
    [
        (f"Content-Length: {len(PULL)}",),
        (f"Content-Length: {len(PULL)}", "Connection: Upgrade", "Upgrade: websocket"),
    ],
)
def test_refused_body_is_no_request(gateway: Gateway, headers: tuple[str, ...]) -> None:
    """F7: what is hidden in the body of a refused request is never answered."""
    head = f"GET /api/tags HTTP/1.1\r\n{HOST}" + "\r\n".join([*headers, "", ""])
    with wire.line(gateway.url) as line:
        reply = line.ask(head.encode() + PULL)
        assert (401, True) == (reply.status, reply.is_last)


@pytest.mark.usefixtures("untouched")
def test_smuggled_request_is_judged_itself(gateway: Gateway) -> None:
    """F1: with both framings the chunks count, and what follows them is a request without a key."""
    data = chunked(gateway, "Content-Length: 5", body=b"") + PULL
    with wire.line(gateway.url) as line:
        assert [400, 403] == [line.ask(data).status, line.read().status]


def test_length_beside_chunks_is_dropped(gateway: Gateway, only_hit: _Only) -> None:
    """F1: the backend gets one framing, made by the gateway."""
    assert 200 == wire.ask(gateway.url, chunked(gateway, "Content-Length: 5")).status
    headers = dict(only_hit().headers)
    assert str(len(CHAT)) == headers["content-length"]
    assert "transfer-encoding" not in headers


def test_trailers_are_ignored(gateway: Gateway, only_hit: _Only) -> None:
    """A trailer cannot bring a header that was refused at the front."""
    end = b"0\r\nX-Nz-Grant: x\r\nAuthorization: Bearer x\r\n\r\n"
    reply = wire.ask(gateway.url, chunked(gateway, "Trailer: X-Nz-Grant, Authorization", end=end))
    assert 200 == reply.status
    assert set() == only_hit().names() & set(OURS)


def test_expectation_is_met_before_the_body(gateway: Gateway, only_hit: _Only) -> None:
    """F12: with a valid key the body is asked for, and nothing of this goes further."""
    data = chat(gateway, "Expect: 100-continue")
    with wire.line(gateway.url) as line:
        line.send(data.removesuffix(CHAT))
        assert 100 == line.read().status
        line.send(CHAT)
        assert 200 == line.read().status
    assert set() == only_hit().names() & set(OURS)


def test_folded_header_is_one_value(gateway: Gateway, witness: Witness) -> None:
    """A10: a key on a folded line is the same key for the guard, for authz and for the record."""
    head = f"GET /api/tags HTTP/1.1\r\n{HOST}Authorization:\r\n Bearer {gateway.key}\r\n\r\n"
    reply = wire.ask(gateway.url, head.encode())
    assert 200 == reply.status
    (row,) = witness.settled([reply.request_id]).values()
    assert row.tenant is not None


NO_HTTP: Final = {
    "two lengths [F4]": (b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "signed length [F4]": (b"Content-Length: +2\r\n\r\n{}", 400),
    "negative length [F4]": (b"Content-Length: -1\r\n\r\n{}", 400),
    "length of 20 digits [F4]": (b"Content-Length: 99999999999999999999\r\n\r\n{}", 400),
    "list of lengths [F4]": (b"Content-Length: 2, 2\r\n\r\n{}", 400),
    "unknown encoding": (b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "two encodings": (b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "encoding twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
    "space before the colon": (b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "two hosts": (b"Host: b\r\n\r\n", 400),
    "control character": (b"X: \x01\r\n\r\n", 400),
    "header without a name": (b": x\r\n\r\n", 400),
    "60 KB of headers [F14]": (b"X: " + b"a" * 60_000 + b"\r\n\r\n", 431),
}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", NO_HTTP)
def test_broken_framing_ends_the_connection(gateway: Gateway, name: str) -> None:
    """Bytes that are not HTTP are refused by the server itself, which reads nothing after it."""
    rest, status = NO_HTTP[name]
    head = f"POST /api/chat HTTP/1.1\r\n{HOST}Authorization: Bearer {gateway.key}\r\n".encode()
    with wire.line(gateway.url) as line:
        reply = line.ask(head + rest)
        assert (status, True) == (reply.status, reply.is_last)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("end", [b"zz\r\n", b"2\r\n{}x\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n"])
def test_broken_chunks_are_refused(gateway: Gateway, end: bytes) -> None:
    """A body whose chunks cannot be read is 400 in words, and the connection ends."""
    with wire.line(gateway.url) as line:
        reply = line.ask(chunked(gateway, body=b"", end=end))
    assert (400, True) == (reply.status, reply.is_last)
    assert "send it again" in str(reply.json()["error"])


@pytest.mark.usefixtures("untouched")
def test_client_that_leaves_in_its_body_has_disconnected(gateway: Gateway, witness: Witness) -> None:
    """Half a body is no request: the record says that the client disconnected, and costs nothing."""
    with wire.line(gateway.url) as line:
        line.send(chunked(gateway, body=b"", end=b"5\r\nab"))
        line.hang_up()
        (row,) = witness.settled([line.read().request_id]).values()
    assert ("client_gone", 0) == (row.outcome, row.tokens)


@pytest.mark.usefixtures("untouched")
def test_options_star_is_nothing(gateway: Gateway) -> None:
    """C1: the server answers `OPTIONS *` itself, emptily."""
    reply = wire.ask(gateway.url, f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n".encode())
    assert (200, b"") == (reply.status, reply.body)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("host", ["EVIL.EXAMPLE.COM", "a:1", "api.example.com.", "127.0.0.1", "[::1]"])
def test_any_host_gets_the_same_verdict(gateway: Gateway, witness: Witness, host: str) -> None:
    """D7: no Host leads past the guard or past the journal."""
    reply = wire.ask(gateway.url, f"GET /api/tags HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert 401 == reply.status
    witness.settled([reply.request_id])
    assert 1 == len(witness.lines(reply.request_id))

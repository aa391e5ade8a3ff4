"""G1 and G3 over HTTP/2, where method and path are fields that can be missing, doubled and misplaced."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.gateway import Gateway
from tests.security.attacks import CHAT
from tests.security.frames import RESET, Fields, verdict
from tests.security.observed import Witness
from tests.security.spellings import MUTATIONS, SPELLINGS

REFUSED: Final = {RESET, 307, 400, 403, 404, 405, 431}
METHOD: Final = (":method", "POST")
SCHEME: Final = (":scheme", "http")
HOST: Final = (":authority", "gateway")
PULL: Final = (":path", "/api/pull")
CHAT_PATH: Final = (":path", "/api/chat")
KEY: Final = ("authorization", "Bearer <key>")
PULLED: Final = (METHOD, SCHEME, HOST, PULL)
CHATTED: Final = (METHOD, SCHEME, HOST, CHAT_PATH)
ATTACKS: Final[dict[str, Fields]] = {
    **{
        f"path {path!r} [G1, G2]": (METHOD, SCHEME, HOST, (":path", path), KEY)
        for path in (
            "",
            "*",
            "api/pull",
            "?x",
            "x:healthz",
            "http://a/healthz",
            "//evil/api/pull",
            "/api/tags#/../pull",
            "/api/pull\0",
            "/a b\r\nX: y",
            "/api/pull HTTP/1.1\r\n\r\n",
        )
    },
    "no path": (METHOD, SCHEME, HOST, KEY),
    "no method": (SCHEME, HOST, CHAT_PATH, KEY),
    "two paths [G3]": (*CHATTED, PULL, KEY),
    "two paths, swapped [G3]": (*PULLED, CHAT_PATH, KEY),
    "two methods [G3]": (*CHATTED, (":method", "GET"), KEY),
    "path after a header [G3]": (METHOD, SCHEME, HOST, KEY, CHAT_PATH),
    "header in upper case [G3]": (*CHATTED, ("Authorization", "Bearer <key>")),
    "line break in a value [G3]": (*CHATTED, KEY, ("x", "y\r\nx-nz-grant: z")),
    "line break in a name [G3]": (*CHATTED, KEY, ("x\r\ny", "z")),
    "unknown pseudo field": (*CHATTED, (":x", "y"), KEY),
    "status in a request": (*CHATTED, (":status", "200"), KEY),
    "hop-by-hop field": (*CHATTED, KEY, ("connection", "x-nz-ask")),
    "encoding of chunks": (*CHATTED, KEY, ("transfer-encoding", "chunked")),
    "length that is not the body's [G3]": (*CHATTED, KEY, ("content-length", "3")),
    "upgrade by CONNECT [G9]": (
        (":method", "CONNECT"),
        SCHEME,
        HOST,
        CHAT_PATH,
        (":protocol", "websocket"),
        KEY,
    ),
    "tunnel": ((":method", "CONNECT"), (":authority", "a:443"), KEY),
    "cleared scheme": (METHOD, (":scheme", "x"), HOST, PULL, KEY),
}


def asked(gateway: Gateway, fields: Fields, body: bytes = b"") -> int:
    """The verdict on these fields, with a valid key in its place."""
    address = urlsplit(gateway.url)
    filled = tuple((name, value.replace("<key>", gateway.key)) for name, value in fields)
    return verdict((str(address.hostname), int(address.port or 0)), filled, body)


def test_plain_request_is_served(gateway: Gateway, witness: Witness) -> None:
    """The frames of this test are understood: a chat is answered, and a wrong key is 401."""
    witness.forget()
    assert 401 == asked(gateway, (*CHATTED, ("authorization", "Bearer nz_x")), CHAT)
    assert 200 == asked(gateway, (*CHATTED, KEY), CHAT)
    assert [CHAT.decode()] == [hit.body for hit in witness.hits()]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("name", ATTACKS)
def test_strange_fields_are_refused(gateway: Gateway, name: str) -> None:
    """G1: what is no request is refused or reset, and nothing of it reaches a backend."""
    assert asked(gateway, ATTACKS[name], CHAT) in REFUSED


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_reaches_a_backend(gateway: Gateway, spelling: str) -> None:
    """G3: mutation paths have no upstream hit over HTTP/2 either."""
    for path in MUTATIONS[:3]:
        fields = (METHOD, SCHEME, HOST, (":path", SPELLINGS[spelling](path)), KEY)
        assert asked(gateway, fields, CHAT) in REFUSED

"""The short way of /verify answers as the ordinary one: uvicorn's own protocol and Litestar's router."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
import uvicorn
from attrs import evolve
from litestar import Litestar

from authz.accounts.keys import CreatedKey, create_key
from authz.accounts.session import Session
from authz.app import build
from authz.backends.backend import Backend
from authz.decision.refusals import Answer
from authz.protocol import DECIDE, Protocol
from authz.settings import Settings
from authz.types import Limits
from tests.authz.asking import BOOT, NODE, uuid7

VARIANTS: dict[str, dict[str, Any]] = {
    "admitted": {},
    "of another model": {"model": "other"},
    "of a name beyond ASCII": {"model": "модель\r\nX-Nz-Grant: {}"},
    "of no path": {"path": "/api/nothing"},
    "of a mutation": {"path": "/api/delete", "method": "DELETE"},
    "for OpenAI": {"path": "/v1/chat/completions", "model": "other"},
    "for Anthropic": {"path": "/v1/messages", "model": "other"},
    "with a body that is none": {"problem": "not_json"},
    "with two keys": {"problem": "credential"},
    "with the body unread": {"problem": "body_unread"},
    "without a key": {"lookup": None},
    "of a strange node": {"node": str(uuid7(0))},
    "of another version": {"v": 2},
    "with what has ended": {"done": [{"id": str(uuid7()), "tenant": str(NODE), "key": str(NODE)}]},
    "of an old id": {"id": str(uuid7(0))},
}


@asynccontextmanager
async def served(app: Litestar, **options: Any) -> AsyncIterator[int]:
    """Serve an application with a protocol; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, ws="none", proxy_headers=False, log_level="warning", **options)
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def ports(
    settings: Settings, demo_url: str, owner_of_tables: asyncpg.Connection
) -> AsyncIterator[tuple[int, int]]:
    """The ports of one application, served in the ordinary way and in the short one."""
    query = "INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $2, now())"
    await owner_of_tables.execute(query, NODE, BOOT)
    app = build(evolve(settings, backends=(Backend("default", demo_url),)), sources_s=lambda: 0.0)
    async with AsyncExitStack() as stack:
        ordinary = await stack.enter_async_context(served(app, http="httptools"))
        yield ordinary, await stack.enter_async_context(served(app, http=Protocol, lifespan="off"))


async def ask(port: int, request: bytes) -> bytes:
    """Send a request as it is, and return all that comes until the connection ends, without the date."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return re.sub(rb"date: [^\r]*\r\n", b"", answer)


def request(key: str, *, line: str = "GET /verify HTTP/1.1", asks: int = 1, **fields: Any) -> bytes:
    """A request with an Ask; the server ends the connection after its answer."""
    asked = {
        "v": 1,
        "id": str(uuid7()),
        "node": str(NODE),
        "boot": str(BOOT),
        "ip": "203.0.113.9",
        "method": "POST",
        "path": "/api/chat",
        "lookup": key[:11],
        "length": 10,
        "model": "demo",
        "stream": True,
        "prompt_bytes": 40,
        "bounds": {"bytes": 48},
        "messages": 1,
    } | fields
    lines = [line, "Host: authz", "Connection: close", f"Authorization: Bearer {key}"]
    lines += [f"X-Nz-Ask: {json.dumps(asked)}"] * asks
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)
async def test_same_answer_either_way(
    ports: tuple[int, int], key: CreatedKey, fields: dict[str, Any]
) -> None:
    """Both ways answer an Ask with the same bytes; it is decided once, since its id is the same."""
    ordinary, short = ports
    sent = request(key.key, **fields)
    answer = await ask(ordinary, sent)
    assert answer.startswith(b"HTTP/1.1 ")
    assert answer == await ask(short, sent)


@pytest.mark.parametrize("limit", ["requests_per_minute", "concurrency", "tokens_per_day"])
async def test_same_refusal_either_way(
    ports: tuple[int, int], session: Session, key: CreatedKey, limit: str
) -> None:
    """Both ways refuse with the same bytes what a limit has no room for."""
    ordinary, short = ports
    await session.limiter.vouch(NODE, lag_ms=0)
    limited = await create_key(session, tenant="acme", name="limited", limits=Limits(**{limit: 1}))
    assert (await ask(short, request(limited.key))).startswith((b"HTTP/1.1 204", b"HTTP/1.1 429"))
    sent = request(limited.key)
    answers = [re.sub(rb"\d+", b"0", await ask(port, sent)) for port in (ordinary, short)]
    assert answers[0].startswith(b"HTTP/0.0 0 Too Many Requests")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("asks", [0, 2])
async def test_what_is_no_ask(ports: tuple[int, int], key: CreatedKey, asks: int) -> None:
    """Both ways answer 400 to what does not come from the guard."""
    answers = [await ask(port, request(key.key, asks=asks)) for port in ports]
    assert answers[0].startswith(b"HTTP/1.1 400 ")
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "line", ["HEAD /verify HTTP/1.1", "POST /verify HTTP/1.1", "GET /verify HTTP/1.0", "GET /readyz HTTP/1.1"]
)
async def test_other_requests(ports: tuple[int, int], key: CreatedKey, line: str) -> None:
    """Both ways answer every other request alike."""
    sent = request(key.key, line=line)
    answers = [await ask(port, sent) for port in ports]
    assert answers[0].startswith(b"HTTP/1.1 ")
    assert answers[0] == answers[1]


async def test_pipelined(ports: tuple[int, int], key: CreatedKey) -> None:
    """Requests that come at once on one connection are answered in their order, on either way."""
    first, second = (request(key.key).replace(b"Connection: close\r\n", b"") for _ in range(2))
    sent = first + second + request(key.key, model="other")
    answers = [await ask(port, sent) for port in ports]
    assert [b"204", b"204", b"404"] == re.findall(rb"HTTP/1.1 (\d+)", answers[0])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "answer", [Answer(204, {"x-nz-grant": "a\r\nb: c"}, b""), Answer(204, {"x-nz-grant": "a\nb"}, b""), None]
)
async def test_a_fault_grants_nothing(answer: Answer | None) -> None:
    """An answer that would be more headers than it has, and any fault, is a 500 without a Grant."""

    async def decide(*_: object) -> Answer:
        if answer is None:
            raise RuntimeError("a fault")
        return answer

    app = Litestar(openapi_config=None, logging_config=None)
    app.state[DECIDE] = decide
    async with served(app, http=Protocol) as port:
        status, *headers = (await ask(port, request("nz_none"))).split(b"\r\n")
    assert b"HTTP/1.1 500 Internal Server Error" == status
    assert [b"server: uvicorn", b"content-length: 0", b"connection: close", b"", b""] == headers

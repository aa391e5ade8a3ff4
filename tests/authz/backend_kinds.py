"""Backends that are no good: one hangs, one lies, one sends what never ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attrs import define, field

from authz.stack.demo.exchange import Receive, Scope, Send

Answer = Callable[[str], bytes | None]
"""The JSON body of a path; None keeps the client waiting."""


@define
class Scripted:
    """An application whose answers can be changed while it is served; it keeps each request's headers."""

    answer: Answer
    accepted: bytes | None = None
    """The Authorization without which it answers 401; None asks for none."""
    asked: list[str] = field(factory=list)
    headers: list[list[tuple[bytes, bytes]]] = field(factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self.asked.append(scope["path"])
        self.headers.append([(name, value) for name, value in scope["headers"]])
        body = self.answer(scope["path"])
        if body is None:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        is_accepted = self.accepted in {None, dict(scope["headers"]).get(b"authorization")}
        status = 200 if is_accepted else 401
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def ollama(*models: str, loaded: str = "") -> Answer:
    """What an Ollama with these models answers, one of them loaded."""
    bodies = {
        "/api/version": b'{"version":"0.1"}',
        "/api/tags": _models(*models),
        "/api/ps": _models(*([loaded] if loaded else [])),
    }
    return lambda path: bodies.get(path, b"{}")


def _models(*names: str) -> bytes:
    return b'{"models":[%s]}' % b",".join(b'{"name":"%s"}' % name.encode() for name in names)


@asynccontextmanager
async def raw_server(reply: list[bytes]) -> AsyncIterator[str]:
    """A server that answers every connection with the first of these, then drips until it is left."""
    serving: set[asyncio.Task[None]] = set()

    async def drip(writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(reply[0])
            for _number in itertools.count():
                await writer.drain()
                await asyncio.sleep(0.2)
                writer.write(b".")
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(
        lambda _, writer: serving.add(asyncio.create_task(drip(writer))), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

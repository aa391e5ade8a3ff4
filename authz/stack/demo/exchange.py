"""One HTTP exchange over raw ASGI: read the body, answer."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from attrs import define

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
JSON = "application/json"


@define
class Exchange:
    """One request and its answer."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def method(self) -> str:
        """The method, as sent."""
        method: str = self.scope["method"]
        return method

    @property
    def path(self) -> str:
        """The decoded path: Ollama's router matches this one."""
        path: str = self.scope["path"]
        return path

    async def body(self) -> bytes:
        """Read the whole body, or what a client that disconnects has sent."""
        parts = []
        while True:
            message = await self.receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def answer(self, status: int, content: object, *, media_type: str = JSON) -> None:
        """Answer at once: bytes as they are, anything else as JSON."""
        body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        await self.start(status, media_type, (b"content-length", b"%d" % len(body)))
        await self.finish(body)

    async def start(self, status: int, media_type: str, *headers: tuple[bytes, bytes]) -> None:
        """Send the status line and the headers."""
        head = ((b"content-type", media_type.encode()), *headers)
        await self.send({"type": "http.response.start", "status": status, "headers": head})

    async def chunk(self, data: bytes) -> None:
        """Send one chunk."""
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last bytes."""
        await self.send({"type": "http.response.body", "body": data})

"""One HTTP exchange over raw ASGI: read the body, answer as Go does, notice a client that left."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final

from attrs import define

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

_GO_BUFFER_BYTES: Final = 2048
"""Go names the length of a body itself as long as the body fits into its buffer."""


@define
class Exchange:
    """One request and its answer; each chunk handed over is one HTTP chunk."""

    scope: Scope
    receive: Receive
    send: Send
    is_started: bool = False

    @property
    def method(self) -> str:
        """The method, upper case as sent."""
        method: str = self.scope["method"]
        return method

    @property
    def path(self) -> str:
        """The decoded path: Ollama's router matches this one."""
        path: str = self.scope["path"]
        return path

    @property
    def query(self) -> bytes:
        """The query as sent, without its question mark."""
        query: bytes = self.scope["query_string"]
        return query

    async def body(self) -> bytes:
        """Read the whole body; what a client that left has sent so far is its body."""
        parts = []
        while True:
            message = await self.receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def answer(self, status: int, content_type: str, body: bytes, *, headers: Headers = ()) -> None:
        """Answer whole; the length is named as Go would."""
        length = ((b"content-length", b"%d" % len(body)),)
        is_named = len(body) <= _GO_BUFFER_BYTES
        await self.start(status, content_type, headers=headers + (length if is_named else ()))
        await self.finish(body)

    async def start(self, status: int, content_type: str, *, headers: Headers = ()) -> None:
        """Send the status line and the headers."""
        self.is_started = True
        head = (*headers, (b"content-type", content_type.encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": head})

    async def chunk(self, data: bytes) -> None:
        """Send one chunk, and let a client that has left be noticed before the next."""
        await self.send({"type": "http.response.body", "body": data, "more_body": True})
        await asyncio.sleep(0)

    async def finish(self, data: bytes = b"") -> None:
        """Send the last bytes and end the answer."""
        await self.send({"type": "http.response.body", "body": data})

    async def while_there(self, work: Coroutine[Any, Any, None]) -> None:
        """Run until done, or stop the work at once when the client leaves."""
        task = asyncio.create_task(work)
        # The server reports a client that left only to someone who is listening for it.
        gone = asyncio.create_task(self._gone())
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

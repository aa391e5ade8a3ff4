"""A gate before a server on a unix socket: what stands between metering and its stores can fail."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from attrs import define, field


@define
class Gate:
    """Stands before a server on a unix socket; can be closed, and can swallow one answer."""

    server: Path
    path: Path
    swallow_answer_to: bytes | None = None
    is_open: bool = True
    _writers: set[asyncio.StreamWriter] = field(factory=set)

    async def serve(self) -> asyncio.Server:
        """Begin to listen."""
        return await asyncio.start_unix_server(self._meet, self.path)

    def close(self) -> None:
        """Cut every connection and refuse new ones."""
        self.is_open = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        inner, outer = await asyncio.open_unix_connection(self.server)
        pair = {writer, outer}
        self._writers |= pair
        jobs = [
            asyncio.create_task(self._pump(reader, outer)),
            asyncio.create_task(self._pump(inner, writer)),
        ]
        await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
        for job in jobs:
            job.cancel()
        for end in pair:
            end.transport.abort()
        self._writers -= pair

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
                if self.swallow_answer_to is not None and self.swallow_answer_to in data:
                    self.swallow_answer_to = None
                    return

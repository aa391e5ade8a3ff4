"""Metrics over HTTP on a unix socket, beside the loop: whatever happens here disturbs no settlement."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import structlog

from authz.prometheus import CONTENT_TYPE

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import AsyncIterator
    from pathlib import Path

    from metering.metrics import Metrics

log: Final = structlog.get_logger()

PATIENCE_S: Final = 5.0
HEAD_BYTES: Final = 8192

_NOT_FOUND: Final = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def listening(path: Path, metrics: Metrics) -> AsyncIterator[None]:
    """Answer GET /metrics there; a socket that can't be made costs the metrics, never the bill."""

    async def answer(reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(head, metrics))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_unix_server(answer, sock=_bound(path), limit=HEAD_BYTES)
    except OSError as error:
        log.warning("metering.metrics_unavailable", reason=str(error))
        yield
        return
    async with server:
        yield


def _bound(path: Path) -> socket.socket:
    """Make a socket for this process, in place of one that an ended process has left."""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound


def _answer(head: bytes, metrics: Metrics) -> bytes:
    if not head.startswith(b"GET /metrics "):
        return _NOT_FOUND
    body = metrics.text()
    lines = (
        "HTTP/1.1 200 OK",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body

"""Connections to Postgres: to the host that takes writes, and ended when a machine no longer answers."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Sequence

SILENT_S: Final = 6
"""A machine that has acknowledged nothing for so long is gone: a standby will take its place."""
_PROBE_S: Final = 2
"""How often a machine is asked that had nothing to say."""


def hosts(url: str) -> Sequence[str]:
    """Return the URL of each host that a URL lists."""
    authority = urlsplit(url).netloc
    login, at, listed = authority.rpartition("@")
    return [url.replace(authority, f"{login}{at}{host}", 1) for host in listed.split(",")]


async def connect(url: str, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
    """Connect to a host of a URL that it accepts (target_session_attrs), as asyncpg.connect does.

    All are asked at once: asyncpg alone asks one after the other, and waits for each that is gone.
    Raises what asyncpg raises for the first that fails, if all do.
    """
    asked = {asyncio.create_task(asyncpg.connect(host, **options)) for host in hosts(url)}
    failures: list[BaseException] = []
    try:
        while asked:
            done, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            failures += [error for task in done if (error := task.exception())]
            if connections := [task.result() for task in done if not task.exception()]:
                for superfluous in connections[1:]:
                    superfluous.terminate()
                return _ended_when_silent(connections[0])
    finally:
        for task in asked:
            if not task.cancel() and not task.exception():
                task.result().terminate()
    raise failures[0]


def _ended_when_silent(connection: Any) -> asyncpg.Connection[asyncpg.Record]:
    """Let the kernel end it when its machine is gone, which a program that waits for an answer never learns.

    See TCP_USER_TIMEOUT in man 7 tcp; asyncpg has no setting for it.
    """
    endpoint = connection._transport.get_extra_info("socket")  # noqa: SLF001 (it has no other way)
    if endpoint.family != socket.AF_UNIX:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_S)
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S)
        endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * SILENT_S)
    found: asyncpg.Connection[asyncpg.Record] = connection
    return found

"""The streams that run on this node: Caddy lists and ends them over its control socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httpx
import msgspec

from authz.errors import CommandError

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

ANSWER_WITHIN_S: Final = 5

GRANT_AGE_S: Final = 2
"""Caddy serves no Grant older than this."""


class Stream(msgspec.Struct, frozen=True):
    """A request that runs on this node."""

    id: str
    tenant: str
    key: str
    model: str | None
    backend: str | None
    path: str
    age_ms: int
    output_tokens: int


class _Killed(msgspec.Struct, frozen=True):
    killed: int


async def streams(socket: Path) -> list[Stream]:
    """List the requests that run on this node."""
    return msgspec.json.decode(await _ask(socket, "GET", "/streams"), type=list[Stream])


async def kill(socket: Path, **which: UUID) -> int:
    """End the streams of a request (id), a key or a tenant; returns how many there were."""
    query = "&".join(f"{name}={value}" for name, value in which.items())
    return msgspec.json.decode(await _ask(socket, "POST", f"/kill?{query}"), type=_Killed).killed


async def kill_all(socket: Path, **which: UUID) -> int:
    """End all streams of a key or tenant, those too that a Grant of just now has yet to start."""
    killed = await kill(socket, **which)
    await asyncio.sleep(GRANT_AGE_S)
    return killed + await kill(socket, **which)


async def _ask(socket: Path, method: str, target: str) -> bytes:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    try:
        async with httpx.AsyncClient(transport=transport, timeout=ANSWER_WITHIN_S) as client:
            answer = await client.request(method, f"http://control{target}")
            return answer.raise_for_status().content
    except httpx.HTTPError as error:
        sentence = f"Caddy does not answer on {socket} ({type(error).__name__}): check that it runs."
        raise CommandError(sentence) from error

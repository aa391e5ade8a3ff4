"""The streams that run on this node: Caddy lists and ends them over its control socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httpx
import msgspec

from authz.errors import CommandError, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    from authz.accounts.session import Session

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


async def kill_all(session: Session, *, tenant: UUID, key: UUID | None = None) -> int:
    """End all streams of a tenant or its key, those too that a Grant of just now has yet to start."""
    which = {"tenant": tenant} if key is None else {"key": key}
    killed = await kill(session.settings.control, **which)
    await asyncio.sleep(GRANT_AGE_S)
    killed += await kill(session.settings.control, **which)
    if killed:
        await note_killed(session, {"requests": killed}, tenant=tenant, key=key)
    return killed


async def note_killed(
    session: Session, what: dict[str, object], *, tenant: UUID | None, key: UUID | None
) -> None:
    """Note in the audit what was ended, afterwards: no store must be up to end a request."""
    try:
        async with session.store.connection() as connection:
            await session.audit(connection, "requests_killed", tenant=tenant, key=key, new=what)
    except StoreUnavailable as error:
        raise CommandError(f"It is ended, but the audit does not say so: {error}") from error


async def _ask(socket: Path, method: str, target: str) -> bytes:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    try:
        async with httpx.AsyncClient(transport=transport, timeout=ANSWER_WITHIN_S) as client:
            answer = await client.request(method, f"http://control{target}")
            return answer.raise_for_status().content
    except httpx.HTTPError as error:
        sentence = f"Caddy does not answer on {socket} ({type(error).__name__}): check that it runs."
        raise CommandError(sentence) from error

"""The streams that run right now: Caddy lists and ends them over its control socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import httpx
import msgspec
from attrs import frozen
from cyclopts import Parameter

from authz.accounts.session import opened
from authz.admin import output
from authz.admin.options import Options
from authz.errors import CommandError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_WITHIN_S = 5

GRANT_AGE_S = 2
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


@frozen
class Row:
    """A stream, with names instead of ids."""

    id: str
    tenant: str
    key: str
    model: str | None
    backend: str | None
    age_s: float
    tokens: int


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


async def streams_list_command(*, options: Options = Options()) -> int:
    """List the requests that run right now."""
    async with opened(options.state) as session:
        running = await streams(session.settings.control)
        names = await session.store.names()
    rows = [
        Row(
            stream.id,
            names.get(stream.tenant, stream.tenant),
            names.get(stream.key, stream.key),
            stream.model,
            stream.backend,
            stream.age_ms / 1000,
            stream.output_tokens,
        )
        for stream in running
    ]
    if options.json:
        output.show_list(rows)
    else:
        columns = ("id", "tenant", "key", "model", "backend", "age_s", "tokens")
        output.show_table(rows, columns=columns, empty="Nothing runs right now.")
    return 0


async def streams_kill_command(
    id_: Annotated[str, Parameter(name="ID", help="Of the request, as `streams list` shows it.")],
    /,
    *,
    options: Options = Options(),
) -> int:
    """End one running request; what it produced so far is billed."""
    try:
        request_id = UUID(id_)
    except ValueError as error:
        raise UsageError(f"{id_!r} is no request id: see `neuronetz-gateway streams list`.") from error
    async with opened(options.state) as session:
        killed = await kill(session.settings.control, id=request_id)
    if not killed:
        raise CommandError(f"No request {id_} runs here: see `neuronetz-gateway streams list`.")
    output.show_state(f"Request {id_} is ended.", killed=killed, is_json=options.json, id=id_)
    return 0

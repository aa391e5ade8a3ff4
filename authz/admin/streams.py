"""The streams that run right now, with names instead of ids."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from attrs import frozen
from cyclopts import Parameter

from authz.accounts.session import opened
from authz.admin import output
from authz.admin.options import ChangeOptions, ListOptions
from authz.errors import CommandError, UsageError
from authz.stack.streams import kill, note_killed, streams


@frozen
class Row:
    """A stream, with names instead of ids."""

    request: str
    tenant: str
    key: str
    model: str | None
    backend: str | None
    age_s: float
    tokens: int


async def streams_list_command(
    *,
    tenant: Annotated[str | None, Parameter(help="Only of this tenant.")] = None,
    options: ListOptions = ListOptions(),
) -> int:
    """List the requests that run right now.

    Example: neuronetz-gateway streams list --json
    """
    async with opened(options.state) as session:
        running = await streams(session.settings.control)
        names = await session.store.names()
    found = [
        Row(
            stream.id,
            names.get(stream.tenant, stream.tenant),
            names.get(stream.key, stream.key),
            stream.model,
            stream.backend,
            stream.age_ms / 1000,
            stream.output_tokens,
        )
        for stream in sorted(running, key=lambda each: each.id)
        if stream.id > (options.after or "") and tenant in {None, names.get(stream.tenant, stream.tenant)}
    ]
    rows = output.page(found, lambda row: row.request, limit=options.limit)
    if options.json:
        output.show_list(rows)
    else:
        columns = ("request", "tenant", "key", "model", "backend", "age_s", "tokens")
        output.show_table(rows, columns=columns, empty="Nothing runs right now.")
    return 0


async def streams_kill_command(
    id_: Annotated[str, Parameter(name="ID", help="Of the request, as `streams list` shows it.")],
    /,
    *,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """End one running request; what it produced so far is billed.

    Example: neuronetz-gateway streams kill 01998b5e-0000-7000-8000-000000000000
    """
    try:
        request_id = UUID(id_)
    except ValueError as error:
        raise UsageError(f"{id_!r} is no request id: see `neuronetz-gateway streams list`.") from error
    async with opened(options.state, actor=options.actor) as session:
        control = session.settings.control
        of = next((each for each in await streams(control) if UUID(each.id) == request_id), None)
        killed = await kill(control, id=request_id)
        if not killed:
            raise CommandError(f"No request {id_} runs here: see `neuronetz-gateway streams list`.")
        tenant, key = (UUID(of.tenant), UUID(of.key)) if of else (None, None)
        await note_killed(session, {"request": request_id}, tenant=tenant, key=key)
    output.show_state(f"Request {id_} is ended.", killed=killed, is_json=options.json, request=id_)
    return 0

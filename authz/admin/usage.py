"""What was billed, per key."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from cyclopts import Parameter

import sql
from authz.admin import output
from authz.admin.ceilings import moment
from authz.admin.keys import find_key
from authz.admin.session import Options, opened
from authz.admin.tenants import find_tenant

if TYPE_CHECKING:
    from authz.admin.session import Session

_queries = sql.load("admin")


@frozen
class Usage:
    """What one key has used."""

    tenant: str
    key: str
    name: str
    requests: int
    input_tokens: int
    output_tokens: int


async def usage(
    session: Session, *, tenant: str | None, key: str | None, since: datetime | None
) -> list[Usage]:
    """What the ledger says was used, key by key."""
    async with session.store.connection() as connection:
        if tenant is not None:
            await find_tenant(connection, tenant)
        if key is not None:
            await find_key(connection, key)
        rows = [row async for row in _queries.usage(connection, tenant=tenant, key=key, since=since)]
    return [Usage(**dict(row)) for row in rows]


async def usage_command(
    *,
    tenant: Annotated[str | None, Parameter(help="Only this tenant.")] = None,
    key: Annotated[str | None, Parameter(help="Only this key, by its prefix.")] = None,
    since: Annotated[str | None, Parameter(help="From when on: a date, a time, or a span like 7d.")] = None,
    options: Options = Options(),
) -> int:
    """Show what was used: the sum of the ledger, key by key."""
    start = None if since is None else moment(since, datetime.now(UTC), is_past=True)
    async with opened(options.state) as session:
        rows = await usage(session, tenant=tenant, key=key, since=start)
    if options.json:
        output.show_list(rows)
    else:
        columns = ("tenant", "key", "name", "requests", "input_tokens", "output_tokens")
        output.show_table(rows, columns=columns, empty="No key has been created yet.")
    return 0

"""The command `usage statement`: what a tenant was billed for a month, by key and model."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from cyclopts import Parameter

import sql
from authz.accounts.session import opened
from authz.accounts.tenants import find_tenant
from authz.admin import output
from authz.admin.options import Options
from authz.errors import CommandError
from authz.models import canonical

if TYPE_CHECKING:
    from authz.accounts.session import Session

_queries = sql.load("usage")


@frozen
class Item:
    """What one key used of one model; a credit to the tenant alone has no key."""

    key: str
    name: str
    model: str
    requests: int
    input_tokens: int
    output_tokens: int
    tokens: int


@frozen
class Statement:
    """A month of a tenant, in its time zone: the items, their sum, and what its budget counted."""

    tenant: str
    month: str
    timezone: str
    items: list[Item]
    tokens: int
    budget_tokens: int


async def statement(session: Session, tenant: str, first: date) -> Statement:
    """Return what a tenant was billed for the month that begins on a day."""
    async with session.store.connection() as connection:
        owner = await find_tenant(connection, tenant)
        after = (first + timedelta(days=31)).replace(day=1)
        found = _queries.statement(connection, tenant=owner["id"], first=first, after=after)
        sums: defaultdict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        async for row in found:
            model = canonical(row["model"]) if row["model"] else ""
            total = sums[row["name"], row["key"], model]
            for index, name in enumerate(("requests", "input_tokens", "output_tokens")):
                total[index] += row[name]
        budget = await _queries.month_used(connection, tenant=owner["id"], first=first)
    items = [
        Item(key, name, model, requests, inputs, outputs, inputs + outputs)
        for (name, key, model), (requests, inputs, outputs) in sorted(sums.items())
    ]
    tokens = sum(item.tokens for item in items)
    return Statement(tenant, f"{first:%Y-%m}", owner["timezone"], items, tokens, budget or 0)


async def statement_command(
    *,
    tenant: Annotated[str, Parameter(help="The tenant's name.")],
    month: Annotated[str, Parameter(help="Which month: 2026-11.")],
    options: Options = Options(),
) -> int:
    """Show what a tenant was billed for a month of its time zone, by key and model."""
    first = _first(month)
    async with opened(options.state) as session:
        found = await statement(session, tenant, first)
    if options.json:
        output.show_value(found)
        return 0
    columns = ("key", "name", "model", "requests", "input_tokens", "output_tokens", "tokens")
    output.show_table(found.items, columns=columns, empty=f"{tenant} was billed nothing in {month}.")
    output.say(f"{tenant}, {found.month} ({found.timezone}): {found.tokens:,} tokens in all.")
    if found.tokens != found.budget_tokens:
        output.say(
            f"Note: its budget of the month counted {found.budget_tokens:,}: see gateway_drift_tokens."
        )
    return 0


def _first(month: str) -> date:
    try:
        return date.fromisoformat(f"{month}-01")
    except ValueError as error:
        raise CommandError(f"--month {month} is no month: write it like 2026-11.") from error

"""What was billed, by tenant, key, model, end user, day and month: the ledger's sums, however long it is."""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

from attrs import evolve, frozen
from cyclopts import App, Parameter

import sql
from authz.accounts.keys import find_key
from authz.accounts.session import opened
from authz.accounts.tenants import find_tenant
from authz.admin import limit_options, output
from authz.admin.options import Options
from authz.admin.period import Period, parse
from authz.errors import UsageError
from authz.models import canonical

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from uuid import UUID

    from authz.accounts.session import Session

_queries = sql.load("usage")

app = App(name="usage", help="Show what was used, export the ledger, or correct it.")
app.command("authz.admin.export:export_command", name="export")
app.command("authz.admin.statement:statement_command", name="statement")
app.command("authz.admin.credit:credit_command", name="credit")


class By(StrEnum):
    """What usage is summed by, one or several of them; days and months are the tenant's."""

    TENANT = "tenant"
    KEY = "key"
    MODEL = "model"
    END_USER = "end-user"
    DAY = "day"
    MONTH = "month"

    @property
    def column(self) -> str:
        """What it is called in a row."""
        return self.replace("-", "_")


SHOWN: Final = {
    By.TENANT: ("tenant",),
    By.KEY: ("tenant", "key", "prefix"),
    By.MODEL: ("model",),
    By.END_USER: ("tenant", "end_user"),
    By.DAY: ("day",),
    By.MONTH: ("month",),
}
"""What a row says of each: fields of Usage. The query `sums` groups by a column of the same name.

An end user is one of a tenant: who is called the same by two of them is two.
"""


@frozen(kw_only=True)
class Usage:
    """What was used of what a row is about; None stands for what usage was not summed by.

    Key and prefix are the name and the handle of a key; what was credited to a tenant alone has no handle.
    The model is under one of its names, empty where no record says which. A request counts when a backend was
    asked. An end user is None where a client names none, where they are not kept, and once they are erased or
    the ledger of the day is dropped.
    """

    tenant: str | None = None
    key: str | None = None
    prefix: str | None = None
    model: str | None = None
    end_user: str | None = None
    day: date | None = None
    month: date | None = None
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input plus output, what a bar shows."""
        return self.input_tokens + self.output_tokens

    @property
    def is_used(self) -> bool:
        """Return whether anything is left, once what has an end user was taken from what has none."""
        return any(getattr(self, name) for name in FIGURES)

    def with_more(self, row: Mapping[str, int]) -> Usage:
        """Return this with the figures of another row added."""
        figures = {name: getattr(self, name) + row[name] for name in FIGURES}
        return evolve(self, **figures)


FIGURES: Final = ("requests", "input_tokens", "output_tokens")

DAYS_AT_ONCE: Final = 31
"""How many days of the ledger are read, and locked, at once where it is read whole."""


@frozen
class Scope:
    """A tenant's or a key's usage, by id; None means all."""

    tenant: UUID | None
    key: UUID | None


Name = tuple[By, object]
"""A tenant or key by its id, or a model, end user, day or month as it is."""


async def usage(
    session: Session,
    *,
    tenant: str | None = None,
    prefix: str | None = None,
    period: Period = Period(),
    by: Sequence[By] = (By.KEY,),
) -> list[Usage]:
    """Sum the ledger over a period, exactly, in the order of what it is summed by.

    Summed by tenants or keys alone, each of them is listed, used or not.
    """
    if By.END_USER in by and By.TENANT not in by:
        by = [*by, By.TENANT]
    async with session.store.connection() as connection:
        scope = await _scope(connection, tenant, prefix)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = [row async for row in _rows(connection, scope, period, by)]
            called = await _called(connection, by, scope)
    sums: dict[tuple[Name, ...], Usage] = {
        (name,): Usage(**fields) for name, fields in called.items() if len(by) == 1
    }
    for row in rows:
        names = tuple(_name(each, row) for each in by)
        if names not in sums:
            sums[names] = Usage(
                **{key: value for name in names for key, value in _said(name, called).items()}
            )
        sums[names] = sums[names].with_more(row)
    found = [row for row in sums.values() if By.END_USER not in by or row.is_used]
    return sorted(found, key=lambda row: [getattr(row, name) or "" for name in shown(by)])


def shown(by: Sequence[By]) -> list[str]:
    """Return what rows say that are summed in this way, each field once."""
    return list(dict.fromkeys(name for each in by for name in SHOWN[each]))


async def _rows(
    connection: Any, scope: Scope, period: Period, by: Sequence[By]
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield sums, several of one name in parts."""
    await period.refuse_dropped(connection)
    zones = [
        (row["id"], row["timezone"]) async for row in _queries.timezones(connection, tenant=scope.tenant)
    ]
    summed = {"by": list(by), "key": scope.key, **period.columns(zones)}
    async for row in _queries.sums(connection, **summed):
        yield row
    if By.END_USER in by:
        async for row in _named_sums(connection, period, summed):
            yield row


async def _named_sums(
    connection: Any, period: Period, summed: Mapping[str, Any]
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield what is to be moved from no end user to each of them.

    The ledger is read some days at a time: a savepoint that is rolled back gives their locks back, of which
    PostgreSQL has room for a few thousand, while the transaction's snapshot stays the same.
    """
    first, last = period.around
    days = [row async for row in _queries.ledger_days(connection, since=first, until=last)]
    for start in range(0, len(days), DAYS_AT_ONCE):
        some = days[start : start + DAYS_AT_ONCE]
        reading = connection.transaction()
        await reading.start()
        try:
            ends = {"first": some[0]["first"], "end": some[-1]["until"]}
            rows = [row async for row in _queries.named_sums(connection, **summed, **ends)]
        finally:
            await reading.rollback()
        for row in rows:
            yield row


async def _scope(connection: Any, tenant: str | None, prefix: str | None) -> Scope:
    tenant_id = None if tenant is None else (await find_tenant(connection, tenant))["id"]
    key_id = None if prefix is None else (await find_key(connection, prefix))["id"]
    return Scope(tenant_id, key_id)


async def _called(connection: Any, by: Sequence[By], scope: Scope) -> dict[Name, dict[str, Any]]:
    """Return what tenants and keys are called, those that usage is summed by."""
    queries = {By.TENANT: _queries.named_tenants, By.KEY: _queries.named_keys}
    return {
        (each, row["id"]): {name: row[name] for name in SHOWN[each]}
        for each in by
        if each in queries
        async for row in queries[each](connection, tenant=scope.tenant, key=scope.key)
    }


def _name(by: By, row: Mapping[str, Any]) -> Name:
    value = row[by.column]
    return by, canonical(value) if by is By.MODEL and value else value


def _said(name: Name, called: Mapping[Name, dict[str, Any]]) -> dict[str, Any]:
    by, value = name
    return called.get(name, {}) if by in {By.TENANT, By.KEY} else {by.column: value}


def _dimensions(text: str) -> list[By]:
    """Parse `key,model,day`. Raises UsageError."""
    try:
        return list(dict.fromkeys(By(part.strip()) for part in text.split(",")))
    except ValueError as error:
        sentence = (
            f"--by {text} can't be summed by: write one or several of {', '.join(By)}, like key,model,day."
        )
        raise UsageError(sentence) from error


@app.default
async def usage_command(
    *,
    by: Annotated[
        str, Parameter(help=f"What to sum by, comma-separated: {', '.join(By)}. Days are the tenant's.")
    ] = "key",
    tenant: Annotated[str | None, Parameter(help="Only this tenant.")] = None,
    prefix: Annotated[
        str | None, Parameter(help="Only the key with this prefix.", validator=limit_options.prefix)
    ] = None,
    since: Annotated[
        str | None, Parameter(help="From when on: a date (of the tenant's), a time, or a span like 7d.")
    ] = None,
    until: Annotated[str | None, Parameter(help="Before when, likewise.")] = None,
    options: Options = Options(),
) -> int:
    """Show what was used: the ledger's sums by key, tenant, model, end user, day or month, or by several.

    Example: neuronetz-gateway usage --by key,model,day --since 2026-11-01 --until 2026-12-01
    """
    dimensions = _dimensions(by)
    period = parse(since, until, datetime.now(UTC))
    async with opened(options.state) as session:
        rows = await usage(session, tenant=tenant, prefix=prefix, period=period, by=dimensions)
    columns = [*shown(dimensions), *FIGURES]
    if options.json:
        output.show_list(rows, columns=columns)
    else:
        output.show_table(rows, columns=columns, empty="Nothing has been used yet.", bar="tokens")
    return 0

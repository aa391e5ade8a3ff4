"""What was billed, by tenant, key, model or day: the ledger's sums, however long the ledger is."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

from attrs import fields, frozen
from cyclopts import App, Parameter

import sql
from authz.accounts.keys import find_key
from authz.accounts.session import opened
from authz.accounts.tenants import find_tenant
from authz.admin import output
from authz.admin.options import Options
from authz.admin.period import Period, parse
from authz.models import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from authz.accounts.session import Session

_queries = sql.load("usage")

app = App(name="usage", help="Show what was used, export the ledger, or correct it.")
app.command("authz.admin.export:export_command", name="export")
app.command("authz.admin.statement:statement_command", name="statement")
app.command("authz.admin.credit:credit_command", name="credit")


class By(StrEnum):
    """What usage is summed by; a day is its tenant's."""

    TENANT = "tenant"
    KEY = "key"
    MODEL = "model"
    DAY = "day"


class _Tokens:
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """Input plus output, what a bar shows."""
        return self.input_tokens + self.output_tokens


@frozen
class Usage(_Tokens):
    """What one key has used; a request counts when a backend was asked."""

    tenant: str
    key: str
    name: str
    requests: int
    input_tokens: int
    output_tokens: int


@frozen
class TenantUsage(_Tokens):
    """What one tenant has used."""

    tenant: str
    requests: int
    input_tokens: int
    output_tokens: int


@frozen
class ModelUsage(_Tokens):
    """What was used of one model, under whatever of its names; empty where no record says which."""

    model: str
    requests: int
    input_tokens: int
    output_tokens: int


@frozen
class DayUsage(_Tokens):
    """What was used on one day."""

    day: date
    requests: int
    input_tokens: int
    output_tokens: int


@frozen
class Scope:
    """A tenant's or a key's usage, by id; None means all."""

    tenant: UUID | None
    key: UUID | None


AnyUsage = Usage | TenantUsage | ModelUsage | DayUsage
Figures = tuple[int, int, int]


async def usage(
    session: Session,
    *,
    tenant: str | None,
    key: str | None,
    period: Period = Period(),
    by: By = By.KEY,
) -> Sequence[AnyUsage]:
    """Sum the ledger over a period, exactly. Keys and tenants are listed, used or not."""
    async with session.store.connection() as connection:
        scope = await _scope(connection, tenant, key)
        await period.refuse_dropped(connection)
        zones = [
            (row["id"], row["timezone"]) async for row in _queries.timezones(connection, tenant=scope.tenant)
        ]
        found = _queries.sums(connection, by=by, key=scope.key, **period.columns(zones))
        sums = {row[_COLUMNS[by]]: _figures(row) async for row in found}
        return await _listed(connection, sums, scope=scope, by=by)


_COLUMNS: Final = {By.TENANT: "tenant_id", By.KEY: "key_id", By.MODEL: "model", By.DAY: "day"}


async def _scope(connection: Any, tenant: str | None, key: str | None) -> Scope:
    tenant_id = None if tenant is None else (await find_tenant(connection, tenant))["id"]
    key_id = None if key is None else (await find_key(connection, key))["id"]
    return Scope(tenant_id, key_id)


async def _listed(connection: Any, sums: dict[Any, Figures], *, scope: Scope, by: By) -> Sequence[AnyUsage]:
    unused = (0, 0, 0)
    names = {"tenant": scope.tenant, "key": scope.key}
    if by is By.KEY:
        keys = [row async for row in _queries.named_keys(connection, **names)]
        return [Usage(row["tenant"], row["key"], row["name"], *sums.get(row["id"], unused)) for row in keys]
    if by is By.TENANT:
        tenants = [row async for row in _queries.named_tenants(connection, **names)]
        return [TenantUsage(row["name"], *sums.get(row["id"], unused)) for row in tenants]
    if by is By.MODEL:
        return [ModelUsage(model, *figures) for model, figures in sorted(_by_canonical(sums).items())]
    return [DayUsage(day, *figures) for day, figures in sums.items()]


def _figures(row: Any) -> Figures:
    return row["requests"], row["input_tokens"], row["output_tokens"]


def _by_canonical(sums: dict[str, Figures]) -> dict[str, Figures]:
    """Merge the names of one model: the ledger keeps each as it was sent."""
    merged: defaultdict[str, Figures] = defaultdict(lambda: (0, 0, 0))
    for name, figures in sums.items():
        model = canonical(name) if name else ""
        one = merged[model]
        merged[model] = (one[0] + figures[0], one[1] + figures[1], one[2] + figures[2])
    return merged


@app.default
async def usage_command(
    *,
    by: Annotated[By, Parameter(help="What to sum by; a day is its tenant's.")] = By.KEY,
    tenant: Annotated[str | None, Parameter(help="Only this tenant.")] = None,
    key: Annotated[str | None, Parameter(help="Only this key, by its prefix.")] = None,
    since: Annotated[str | None, Parameter(help="From when on: a date, a time, or a span like 7d.")] = None,
    until: Annotated[str | None, Parameter(help="Before when, likewise.")] = None,
    options: Options = Options(),
) -> int:
    """Show what was used: the sums of the ledger by key, tenant, model or day."""
    period = parse(since, until, datetime.now(UTC))
    async with opened(options.state) as session:
        rows = await usage(session, tenant=tenant, key=key, period=period, by=by)
    if options.json:
        output.show_list(rows)
        return 0
    columns = [field.name for field in fields(type(rows[0]))] if rows else []
    output.show_table(rows, columns=columns, empty="Nothing has been used yet.", bar="tokens")
    return 0

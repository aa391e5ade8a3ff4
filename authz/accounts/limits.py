"""Limits: set them, and see how far they are used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from attrs import frozen
from cyclopts import Parameter

import sql
from authz.accounts.keys import find_key
from authz.accounts.session import Options, opened
from authz.accounts.tenants import find_tenant
from authz.admin import limit_options, output
from authz.admin.limit_options import LimitOptions, ScopeOptions
from authz.decision import calendar as windows
from authz.errors import CommandError

if TYPE_CHECKING:
    import asyncpg

    from authz.accounts.session import Session
    from authz.limiter.admission import Standing

TenantName = Annotated[str | None, Parameter(help="The tenant's name.")]
Prefix = Annotated[str | None, Parameter(help="The key's first 11 characters.")]

MINUTE_US = 60_000_000

_queries = sql.load("admin")


@frozen
class Row:
    """A limit: whose, how much of it is used, held by running requests and left, and when it is new."""

    scope: str
    limit: str
    value: int
    used: int
    held: int
    left: int
    reset: datetime | None


async def set_tenant_limits(
    session: Session, name: str, *, limits: LimitOptions, timezone: str | None
) -> None:
    """Change a tenant's limits; in force for the next request when this returns."""
    async with session.store.connection() as connection, connection.transaction():
        tenant = await find_tenant(connection, name)
        old = limit_options.limits_of(tenant)
        new = limits.applied(old)
        zone = tenant["timezone"] if timezone is None else limit_options.timezone(timezone)
        columns = limit_options.columns(new)
        await _queries.set_tenant_limits(connection, tenant=tenant["id"], timezone=zone, **columns)
        await session.audit(connection, "limits_set", tenant=tenant["id"], old=old, new=new)
    await session.publish()


async def set_key_limits(
    session: Session, prefix: str, *, limits: LimitOptions, scope: ScopeOptions, now: datetime
) -> list[str]:
    """Change a key's limits and restrictions; returns which of its limits lie above its tenant's."""
    async with session.store.connection() as connection, connection.transaction():
        key = await find_key(connection, prefix)
        tenant = await find_tenant(connection, key["tenant"])
        old, new = limit_options.limits_of(key), limits.applied(limit_options.limits_of(key))
        may = scope.applied(limit_options.scope_of(key), now)
        await _queries.set_key_limits(
            connection,
            key=key["id"],
            models=may.models,
            cidrs=may.cidrs,
            expires_at=may.expires_at,
            max_output=may.max_output,
            **limit_options.columns(new),
        )
        await session.audit(connection, "limits_set", tenant=tenant["id"], key=key["id"], old=old, new=new)
    await session.publish()
    return limit_options.above(new, limit_options.limits_of(tenant))


async def show(session: Session, *, tenant: str | None, prefix: str | None, now: datetime) -> list[Row]:
    """Every limit of a tenant and its keys, or of one key and its tenant, with its use."""
    async with session.store.connection() as connection:
        key = await find_key(connection, prefix) if prefix else None
        owner = await find_tenant(connection, key["tenant"] if key else tenant or "")
        listed = [row async for row in _queries.list_keys(connection, tenant=owner["id"])]
        prefixes = {row["id"]: row["prefix"] for row in reversed(listed)}
        wanted = [prefix] if prefix else list(prefixes.values())
        keys = [await find_key(connection, name) for name in wanted]
    calendar = windows.at(now, owner["timezone"])
    standings = await session.limiter.standing(owner["id"], [row["id"] for row in keys], calendar.windows)
    if standings is None:
        raise CommandError("The counters are being restored from Postgres: try again in a few seconds.")
    names = [owner["name"], *wanted]
    return [
        row
        for name, record, standing in zip(names, [owner, *keys], standings, strict=True)
        for row in _rows(name, record, standing, calendar, now)
    ]


def _rows(
    scope: str, record: asyncpg.Record, standing: Standing, calendar: windows.Calendar, now: datetime
) -> list[Row]:
    limits = limit_options.limits_of(record)
    rows = []
    for name, limit, full_in_us in (
        ("requests per minute", limits.requests_per_minute, standing.requests_full_in_us),
        ("tokens per minute", limits.tokens_per_minute, standing.tokens_full_in_us),
    ):
        if limit is not None:
            used = min(limit, -(-full_in_us * limit // MINUTE_US))
            rows.append(Row(scope, name, limit, used, 0, limit - used, None))
    if limits.concurrency is not None:
        left = max(0, limits.concurrency - standing.running)
        rows.append(Row(scope, "concurrency", limits.concurrency, standing.running, 0, left, None))
    for name, limit, use, reset in (
        ("tokens per day", limits.tokens_per_day, standing.day, calendar.valid_until),
        ("tokens per month", limits.tokens_per_month, standing.month, calendar.next_month),
        ("tokens total", limits.tokens_total, standing.total, None),
    ):
        if limit is not None:
            left = max(0, limit - use.used - use.held)
            rows.append(Row(scope, name, limit, use.used, use.held, left, reset))
    return rows


async def set_limits_command(
    *,
    tenant: TenantName = None,
    prefix: Prefix = None,
    timezone: Annotated[str | None, Parameter(help="Of a tenant: whose days and months count.")] = None,
    limits: LimitOptions = LimitOptions(),
    scope: ScopeOptions = ScopeOptions(),
    options: Options = Options(),
) -> int:
    """Change the limits of a tenant or a key; the next request is held to them."""
    _one_of(tenant, prefix)
    if tenant and scope != ScopeOptions():
        raise CommandError(
            "--models, --cidr, --expires and --max-output are set on a key: name it with --prefix."
        )
    if prefix and timezone:
        raise CommandError("--timezone is set on a tenant: name it with --tenant.")
    now = datetime.now(UTC)
    unreachable: list[str] = []
    async with opened(options.state) as session:
        if tenant:
            await set_tenant_limits(session, tenant, limits=limits, timezone=timezone)
        elif prefix:
            unreachable = await set_key_limits(session, prefix, limits=limits, scope=scope, now=now)
        rows = await show(session, tenant=tenant, prefix=prefix, now=now)
    _print(rows, is_json=options.json)
    output.note_above(unreachable, is_json=options.json)
    return 0


async def show_limits_command(
    *, tenant: TenantName = None, prefix: Prefix = None, options: Options = Options()
) -> int:
    """Show limits with what is used, held by running requests and left of each."""
    _one_of(tenant, prefix)
    async with opened(options.state) as session:
        rows = await show(session, tenant=tenant, prefix=prefix, now=datetime.now(UTC))
    _print(rows, is_json=options.json)
    return 0


def _one_of(tenant: str | None, prefix: str | None) -> None:
    if (tenant is None) == (prefix is None):
        raise CommandError("Name either a tenant with --tenant or a key with --prefix.")


def _print(rows: list[Row], *, is_json: bool) -> None:
    if is_json:
        output.show_list(rows)
        return
    columns = ("scope", "limit", "value", "used", "held", "left", "reset")
    output.show_table(rows, columns=columns, empty="There are no limits.")

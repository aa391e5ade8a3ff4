"""Change limits, and read how far they are used."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 (attrs reads it)
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import asdict, frozen

import sql
from authz.accounts import scope as scope_
from authz.accounts.keys import find_key
from authz.accounts.tenants import find_tenant
from authz.decision import calendar as calendars
from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

    import asyncpg

    from authz.accounts.scope import Scope
    from authz.accounts.session import Session
    from authz.decision.calendar import Calendar
    from authz.limiter.wire import Standing
    from authz.types import Limits, Policy

MINUTE_US = 60_000_000

_queries = sql.load("accounts")


T = TypeVar("T")


@frozen
class Row:
    """A limit of a tenant or key: what is used, held by running requests and left, and when it restarts.

    A restriction or a policy has a value alone.
    """

    scope: str
    limit: str
    value: int | str | datetime | tuple[str, ...]
    used: int | None
    held: int | None
    left: int | None
    reset: datetime | None


def _unchanged(value: T) -> T:
    return value


async def set_tenant_limits(
    session: Session,
    name: str,
    *,
    limits: Callable[[Limits], Limits],
    policy: Callable[[Policy], Policy] = _unchanged,
    timezone: str | None = None,
) -> None:
    """Change a tenant's limits by a function; in force for the next request when this returns.

    No change is no event and no new version.
    """
    async with session.store.connection() as connection, connection.transaction():
        tenant = await find_tenant(connection, name)
        new = limits(scope_.limits_of(tenant))
        may = policy(scope_.policy_of(tenant))
        zone = tenant["timezone"] if timezone is None else scope_.timezone(timezone)
        before = scope_.tenant_values(tenant)
        after = before | asdict(new) | asdict(may) | {"timezone": zone}
        if before == after:
            return
        await _queries.set_tenant_limits(
            connection,
            tenant=tenant["id"],
            timezone=zone,
            policy=scope_.policy_column(may),
            **scope_.columns(new),
        )
        await session.audit(connection, "limits_set", tenant=tenant["id"], old=before, new=after)
    await session.publish()


async def set_key_limits(
    session: Session,
    prefix: str,
    *,
    limits: Callable[[Limits], Limits] = _unchanged,
    scope: Callable[[Scope], Scope] = _unchanged,
    policy: Callable[[Policy], Policy] = _unchanged,
) -> list[str]:
    """Change a key's limits and restrictions; returns which of its limits lie above its tenant's."""
    async with session.store.connection() as connection, connection.transaction():
        key = await find_key(connection, prefix)
        whole = scope_.limits_of(await _queries.tenant_limits(connection, tenant=key["tenant_id"]))
        new = limits(scope_.limits_of(key))
        may = scope(scope_.scope_of(key))
        new_policy = policy(scope_.policy_of(key))
        above = scope_.above(new, whole)
        before = scope_.key_values(key)
        after = before | asdict(new) | asdict(may) | asdict(new_policy)
        if before == after:
            return above
        await _queries.set_key_limits(
            connection,
            key=key["id"],
            models=may.models,
            cidrs=may.cidrs,
            expires_at=may.expires_at,
            max_output=may.max_output,
            log_prompts_s=may.log_prompts_s,
            policy=scope_.policy_column(new_policy),
            **scope_.columns(new),
        )
        await session.audit(
            connection, "limits_set", tenant=key["tenant_id"], key=key["id"], old=before, new=after
        )
    await session.publish()
    return above


async def show(session: Session, *, tenant: str | None, prefix: str | None, now: datetime) -> list[Row]:
    """Return every limit of a tenant and its keys, or of one key and its tenant, with its use."""
    async with session.store.connection() as connection:
        found = [row async for row in _queries.limits_now(connection, tenant=tenant, prefix=prefix)]
        if not found:
            await _complain(connection, tenant=tenant, prefix=prefix)
    owner, *keys = found
    calendar = calendars.at(now, owner["timezone"])
    standings = await session.limiter.standing(
        owner["tenant"], [row["key"] for row in keys], calendar.windows
    )
    if standings is None:
        raise CommandError("The counters are being restored from Postgres: try again in a few seconds.")
    return [
        row
        for record, standing in zip(found, standings, strict=True)
        for row in (*_rows(record, standing, calendar), *_restrictions(record))
    ]


async def _complain(connection: Any, *, tenant: str | None, prefix: str | None) -> None:
    """Raise the CommandError of a tenant or key that is not there."""
    if prefix is not None:
        await find_key(connection, prefix)
    await find_tenant(connection, tenant or "")


def _restrictions(record: asyncpg.Record) -> list[Row]:
    scope = scope_.scope_of(record)
    named = (
        ("models", scope.models),
        ("networks", scope.cidrs),
        ("expires", scope.expires_at),
        ("output of an answer", scope.max_output),
        ("log_prompts_s", scope.log_prompts_s),
        *scope_.policy_of(record).given.items(),
    )
    return [
        Row(record["scope"], name, value, None, None, None, None)
        for name, value in named
        if value is not None
    ]


def _rows(record: asyncpg.Record, standing: Standing, calendar: Calendar) -> list[Row]:
    scope, limits = record["scope"], scope_.limits_of(record)
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

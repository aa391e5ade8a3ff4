"""What whoever makes reports reads: names, the tenant's days, and nothing that is secret."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from authz.accounts.credits import credit_request, credit_tenant
from authz.accounts.keys import create_key
from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.admin.usage import By, usage
from authz.decision import calendar
from authz.store import Store, act_as
from authz.types import Identity, Limits
from metering.rows import LedgerRow
from tests.authz.billing import Book, denied, served
from tests.authz.conftest import known

LATE = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
VIEWS = ["v_requests", "v_usage_daily_local", "v_budgets"]
NEXT_DAY, MONTH = date(2026, 11, 25), date(2026, 11, 1)


@pytest.fixture
async def row(session: Session, book: Book, owner: Identity) -> LedgerRow:
    """A request of 30 tokens that is tomorrow's where its tenant lives, one refused, and a credit of 4."""
    await set_tenant_limits(session, "acme", limits=lambda old: old, timezone="Pacific/Auckland")
    row = served(owner, LATE, day=NEXT_DAY, month=MONTH)
    await book.settle(row, denied(owner, LATE))
    await credit_tenant(session, "acme", prefix=None, tokens=4, reason="too many", at=LATE)
    return row


async def test_reports_have_names_and_the_tenants_day(
    row: LedgerRow, owner_of_tables: asyncpg.Connection
) -> None:
    """A reader sees what was billed by tenant, key and day as they are called."""
    await act_as(owner_of_tables, "gateway_reader")
    requests = await owner_of_tables.fetch(
        "SELECT tenant, key, day, outcome, is_counted, is_corrected, tokens FROM v_requests "
        "ORDER BY request_id, tokens DESC"
    )
    assert [
        ("acme", "first", NEXT_DAY, "completed", True, False, 30),
        ("acme", "first", None, "denied", False, False, 0),
        ("acme", None, NEXT_DAY, "corrected", False, True, -4),
    ] == sorted((tuple(each) for each in requests), key=lambda each: -each[-1])
    days = await owner_of_tables.fetch(
        "SELECT day, timezone, tenant, key, model, requests, tokens FROM v_usage_daily_local "
        "ORDER BY requests DESC"
    )
    assert [
        (NEXT_DAY, "Pacific/Auckland", "acme", "first", "llama3.2:latest", 1, 30),
        (NEXT_DAY, "Pacific/Auckland", "acme", None, "", 0, -4),
    ] == [tuple(day) for day in days]
    windows = await owner_of_tables.fetch(
        "SELECT tenant, key, start, until, used_tokens FROM v_budgets "
        "WHERE period = 'day' ORDER BY used_tokens"
    )
    assert [
        ("acme", None, NEXT_DAY, date(2026, 11, 26), 26),
        ("acme", "first", NEXT_DAY, date(2026, 11, 26), 30),
    ] == [tuple(window) for window in windows]
    assert row.day == NEXT_DAY


async def test_a_request_is_one_row(
    session: Session, book: Book, owner: Identity, owner_of_tables: asyncpg.Connection
) -> None:
    """An adjustment and corrections are in the tokens of their request, which stays one row."""
    request = served(owner, LATE, day=LATE.date(), month=MONTH)
    await book.settle(request, request._replace(entry=1, input_tokens=-3, output_tokens=5))
    await credit_request(session, request.request_id, tokens=7, reason="too many", at=LATE)
    found = await owner_of_tables.fetch(
        "SELECT input_tokens, output_tokens, tokens, is_corrected FROM v_requests"
    )
    assert [(7, 18, 25, True)] == [tuple(each) for each in found]


async def test_budgets_are_those_of_now(
    session: Session, book: Book, owner: Identity, owner_of_tables: asyncpg.Connection
) -> None:
    """A budget is listed in the window of its tenant's day, with what is left of it."""
    wanted = Limits(tokens_per_day=100, tokens_per_month=1000, tokens_total=20)
    zone = "Pacific/Kiritimati"  # 14 hours ahead
    await set_tenant_limits(session, "acme", limits=lambda _: wanted, timezone=zone)
    now = await owner_of_tables.fetchval("SELECT now()")
    today = now.astimezone(ZoneInfo(zone)).date()
    first = today.replace(day=1)
    await book.settle(served(owner, now, day=today, month=first))
    found = await owner_of_tables.fetch(
        "SELECT period, start, until, limit_tokens, used_tokens, left_tokens FROM v_budgets "
        "WHERE key IS NULL ORDER BY period"
    )
    next_month = (first + timedelta(days=31)).replace(day=1)
    assert [
        ("day", today, today + timedelta(days=1), 100, 30, 70),
        ("month", first, next_month, 1000, 30, 970),
        ("total", date(1970, 1, 1), None, 20, 30, 0),
    ] == [tuple(each) for each in found]


ZONES = ("America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "UTC")
"""Clocks that are set back by an hour and by half of one, and hours that are not whole."""


async def test_every_book_has_the_same_sums(
    session: Session, store: Store, book: Book, owner_of_tables: asyncpg.Connection
) -> None:
    """Ledger, views, `usage` and budgets agree on each day of each zone, where clocks change, too."""
    rows = []
    for number, zone in enumerate(ZONES):
        name = f"zone{number}"
        await create_tenant(session, name, timezone=zone)
        created = await create_key(session, tenant=name, name="key")
        owner = await known(store, created.prefix)
        for start in (
            datetime(2026, 3, 7, tzinfo=UTC),
            datetime(2026, 4, 4, tzinfo=UTC),
            LATE.replace(month=10, day=31),
        ):
            for quarter in range(0, 260, 3):
                at = start + timedelta(minutes=15 * quarter)
                windows = calendar.at(at, zone).windows
                day = date.fromisoformat(windows.day)
                rows.append(served(owner, at, day=day, month=day.replace(day=1), input_tokens=quarter))
    await book.settle(*rows)
    expected: defaultdict[tuple[str, date], int] = defaultdict(int)
    for row in rows:
        assert row.tenant_id
        assert row.day == row.at.astimezone(ZoneInfo(await zone_of(owner_of_tables, row.tenant_id))).date()
        expected[str(row.tenant_id), row.day] += row.tokens
    by_tenant = {
        row["name"]: str(row["id"]) for row in await owner_of_tables.fetch("SELECT id, name FROM tenants")
    }
    used = await usage(session, by=[By.TENANT, By.DAY])
    assert expected == {(by_tenant[row.tenant or ""], row.day): row.tokens for row in used}
    for query in (
        "SELECT tenant, day, sum(tokens) FROM v_requests GROUP BY 1, 2",
        "SELECT tenant, day, sum(tokens) FROM v_usage_daily_local GROUP BY 1, 2",
        "SELECT tenant, start, used_tokens FROM v_budgets WHERE period = 'day' AND key IS NULL",
        "SELECT tenant, start, used_tokens FROM v_budgets WHERE period = 'day' AND key IS NOT NULL",
    ):
        found = await owner_of_tables.fetch(query)
        assert expected == {(by_tenant[each[0]], each[1]): each[2] for each in found}, query


async def zone_of(connection: asyncpg.Connection, tenant: UUID) -> str:
    """The time zone of a tenant."""
    return str(await connection.fetchval("SELECT timezone FROM tenants WHERE id = $1", tenant))


@pytest.mark.parametrize("table", ["ledger", "secrets", "tenants", "admin_audit", "budget_windows"])
async def test_a_reader_has_no_table(owner_of_tables: asyncpg.Connection, table: str) -> None:
    """Reports are made from the views alone, which have no address and no credential."""
    await act_as(owner_of_tables, "gateway_reader")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner_of_tables.execute(f"SELECT FROM {table}")
    columns = await owner_of_tables.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid::regclass::text = ANY($1)", VIEWS
    )
    assert not {"ip", "lookup", "prefix"} & {column["attname"] for column in columns}


async def test_what_is_in_a_table_is_said_in_the_database(owner_of_tables: asyncpg.Connection) -> None:
    """Every table and view has a comment, and every column of those that reports are made of."""
    bare = await owner_of_tables.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND relname <> 'schema_migrations' "
        "AND obj_description(oid, 'pg_class') IS NULL "
        "UNION ALL SELECT attrelid::regclass || '.' || attname FROM pg_attribute WHERE attnum > 0 "
        "AND (attrelid IN ('ledger'::regclass, 'usage_daily'::regclass, 'budget_windows'::regclass) "
        "OR attrelid::regclass::text = ANY($1)) "
        "AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL",
        VIEWS,
    )
    assert [] == [row["relname"] for row in bare]

"""What whoever makes reports reads: names, the tenant's days, and nothing that is secret."""

from __future__ import annotations

from datetime import UTC, date, datetime

import asyncpg
import pytest

from authz.accounts.credits import credit_tenant
from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.store import act_as
from authz.types import Identity
from metering.rows import LedgerRow
from tests.authz.billing import Book, denied, served

LATE = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
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
    entries = await owner_of_tables.fetch(
        "SELECT tenant, key, day, outcome, actor, tokens FROM report_entries ORDER BY entry, tokens DESC"
    )
    assert [
        ("acme", "first", NEXT_DAY, "completed", None, 30),
        ("acme", "first", None, "denied", None, 0),
        ("acme", None, NEXT_DAY, "corrected", "tester", -4),
    ] == [tuple(entry) for entry in entries]
    days = await owner_of_tables.fetch(
        "SELECT day, tenant, key, model, requests, tokens FROM report_days ORDER BY requests DESC"
    )
    assert [
        (NEXT_DAY, "acme", "first", "llama3.2:latest", 1, 30),
        (NEXT_DAY, "acme", None, "", 0, -4),
    ] == [tuple(day) for day in days]
    windows = await owner_of_tables.fetch(
        "SELECT tenant, key, start, tokens FROM report_windows WHERE period = 'day' ORDER BY tokens"
    )
    assert [("acme", None, NEXT_DAY, 26), ("acme", "first", NEXT_DAY, 30)] == [
        tuple(window) for window in windows
    ]
    assert row.day == NEXT_DAY


@pytest.mark.parametrize("table", ["ledger", "secrets", "tenants", "admin_audit", "budget_windows"])
async def test_a_reader_has_no_table(owner_of_tables: asyncpg.Connection, table: str) -> None:
    """Reports are made from the views alone, which have no address and no credential."""
    await act_as(owner_of_tables, "gateway_reader")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner_of_tables.execute(f"SELECT FROM {table}")
    columns = await owner_of_tables.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'report_entries'::regclass"
    )
    assert not {"ip", "lookup"} & {column["attname"] for column in columns}


async def test_what_is_in_a_table_is_said_in_the_database(owner_of_tables: asyncpg.Connection) -> None:
    """Every table and view has a comment, and every column of those that reports are made of."""
    bare = await owner_of_tables.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND relname <> 'schema_migrations' "
        "AND obj_description(oid, 'pg_class') IS NULL "
        "UNION ALL SELECT attrelid::regclass || '.' || attname FROM pg_attribute WHERE attnum > 0 "
        "AND attrelid IN ('ledger'::regclass, 'usage_daily'::regclass, 'budget_windows'::regclass) "
        "AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL"
    )
    assert [] == [row["relname"] for row in bare]

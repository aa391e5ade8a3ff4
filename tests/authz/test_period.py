"""What was used from one date or moment until another, by the days of each tenant."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from authz.accounts.keys import create_key
from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.admin.period import Period, parse
from authz.admin.usage import By, usage
from authz.errors import CommandError
from authz.store import Store
from authz.types import Identity
from metering.rows import LedgerRow
from sql import FOLDER
from tests.authz.billing import Book, served
from tests.authz.conftest import known

ZONES = {"acme": "Pacific/Auckland", "zeta": "America/New_York"}
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
ENDS = (
    None,
    date(2026, 11, 24),
    date(2026, 11, 25),
    datetime(2026, 11, 24, 2, 30, tzinfo=UTC),
    datetime(2026, 11, 24, 11, tzinfo=UTC),  # midnight in Auckland
    datetime(2026, 11, 25, 5, tzinfo=UTC),  # midnight in New York
)


@pytest.fixture
async def rows(session: Session, store: Store, book: Book, owner: Identity) -> list[LedgerRow]:
    """A request every 50 minutes for four days, by a tenant in the far east and one in the west."""
    await create_tenant(session, "zeta")
    other = await create_key(session, tenant="zeta", name="second")
    owners = {"acme": owner, "zeta": await known(store, other.prefix)}
    for name, zone in ZONES.items():
        await set_tenant_limits(session, name, limits=lambda old: old, timezone=zone)
    found = []
    for number in range(115):
        name = ("acme", "zeta")[number % 2]
        at = datetime(2026, 11, 22, 23, tzinfo=UTC) + timedelta(minutes=50 * number)
        day = at.astimezone(ZoneInfo(ZONES[name])).date()
        found.append(served(owners[name], at, day=day, month=day.replace(day=1), input_tokens=number))
    await book.add(*found)
    return found


def _is_before(row: LedgerRow, end: date | datetime | None) -> bool:
    if end is None:
        return False
    return row.at < end if isinstance(end, datetime) else row.day is not None and row.day < end


@pytest.mark.parametrize("since", ENDS)
async def test_a_period_is_what_lies_between_its_ends(
    session: Session, rows: list[LedgerRow], since: date | datetime | None
) -> None:
    """A date is the day of each tenant, a moment is the same for all; since is included, until is not."""
    for until in ENDS:
        inside = [
            row for row in rows if not _is_before(row, since) and (until is None or _is_before(row, until))
        ]
        for by in (By.DAY, By.TENANT):
            found = await usage(session, period=Period(since, until), by=[by])
            assert sum(row.tokens for row in inside) == sum(row.tokens for row in found), (since, until)
            assert len(inside) == sum(row.requests for row in found)


async def test_days_are_those_of_the_budget(session: Session, rows: list[LedgerRow]) -> None:
    """--by day agrees with the day whose window paid."""
    found = await usage(session, tenant="acme", by=[By.DAY])
    days = {row.day: row.tokens for row in found}
    assert rows[0].tenant_id
    mine = [row for row in rows if row.tenant_id == rows[0].tenant_id]
    assert {
        day: sum(row.tokens for row in mine if row.day == day) for day in {row.day for row in mine}
    } == days


def test_ends_are_dates_or_moments() -> None:
    """A date alone is a whole day of each tenant, everything else a moment."""
    assert Period(date(2026, 11, 1), date(2026, 12, 1)) == parse("2026-11-01", "2026-12-01", NOW)
    assert Period(NOW - timedelta(days=7), None) == parse("7d", None, NOW)
    assert Period(None, NOW) == parse(None, "2026-11-26T12:00", NOW)


@pytest.mark.parametrize(
    ("since", "until"), [("2026-11-02", "2026-11-01"), ("1d", "7d"), ("2026-11-02", "2026-11-02")]
)
def test_an_end_is_after_its_beginning(since: str, until: str) -> None:
    """A period that can hold nothing is a mistake, and the sentence names both ends."""
    with pytest.raises(CommandError, match=f"--until {until} is not after --since {since}"):
        parse(since, until, NOW)


async def test_sums_move_to_the_tenants_day(
    book: Book, owner: Identity, owner_of_tables: asyncpg.Connection
) -> None:
    """An installation that summed by UTC day has every token once after its migration, by tenants' days."""
    day = date(2026, 11, 25)
    await book.add(served(owner, datetime(2026, 11, 24, 23, tzinfo=UTC), day=day))
    await owner_of_tables.execute("UPDATE usage_daily SET day = '2026-11-24'")
    await owner_of_tables.execute(
        "INSERT INTO usage_daily SELECT '2026-01-01', tenant_id, key_id, 'old', 1, 2, 3 "
        "FROM usage_daily LIMIT 1"
    )
    text = (FOLDER / "migrations" / "20261126000012_tenants_days.sql").read_text()
    await owner_of_tables.execute(text.partition("-- migrate:down")[0])
    sums = await owner_of_tables.fetch(
        "SELECT day, sum(input_tokens + output_tokens) FROM usage_daily GROUP BY 1 ORDER BY 1"
    )
    assert [(date(2026, 1, 1), 5), (day, 30)] == [tuple(each) for each in sums]

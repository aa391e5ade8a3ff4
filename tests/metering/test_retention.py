"""What is kept when days of the ledger go, and that nothing is billed twice because of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from authz.errors import StoreUnavailable
from authz.limiter.limiter import Limiter
from metering.retention import ClocksDisagreeError, Retention
from tests.metering.conftest import Begin, Service
from tests.metering.test_refusals import STRANGER
from tests.metering.writing import KEY, JournalFile

DAY = 86_400_000


@pytest.fixture
async def now(database: str) -> datetime:
    """Postgres's clock, by which days are old or not, on a day that does not end during a test."""
    connection = await asyncpg.connect(database)
    await connection.execute(
        "SELECT pg_sleep_until(midnight) FROM (SELECT date_trunc('day', now() AT TIME ZONE 'UTC')"
        " AT TIME ZONE 'UTC' + interval '1 day' AS midnight) AS day WHERE midnight - now() < interval '15 s'"
    )
    moment: datetime = await connection.fetchval("SELECT now()")
    await connection.close()
    return moment.astimezone(UTC)


@pytest.fixture
def journal(journal: JournalFile, now: datetime, limiter: Limiter) -> JournalFile:
    """A journal whose requests begin now, for Redis as well."""
    journal.begun_ms = int(now.timestamp() * 1000)
    limiter.clock_us = journal.begun_ms * 1000
    journal.__attrs_post_init__()
    journal.start()
    return journal


@pytest.fixture
async def dropper(database: str) -> AsyncIterator[Retention]:
    """A connection that may drop days."""
    async with Retention.opened(database) as opened:
        yield opened


def served(journal: JournalFile, *days_ago: int) -> None:
    """One request and one refusal of a stranger on each of these days."""
    for days in days_ago:
        journal.append(journal.ended(journal.new_id(at_ms=journal.begun_ms - days * DAY)))
        journal.append(journal.ended(journal.new_id(at_ms=journal.begun_ms - days * DAY), **STRANGER))


async def without_old_day(begin: Begin, journal: JournalFile, dropper: Retention, now: datetime) -> Service:
    """Metering after a day was settled and dropped."""
    served(journal, 40)
    service = await begin()
    await service.drain()
    await dropper.keep(30, [now])
    return service


async def kept(service: Service) -> dict[str, int]:
    """How many rows there are of what has a date."""
    tables = ("ledger", "refusals_per_minute", "usage_daily", "budget_windows")
    return {table: await service.count(table) for table in tables}


async def sums(service: Service) -> list[object]:
    """Everything that is summed and not listed."""
    return [
        [tuple(row) for row in await service.ledger.fetch(query)]
        for query in (
            "SELECT scope_id, period, start, used FROM budget_windows ORDER BY 1, 2, 3",
            "SELECT * FROM usage_daily ORDER BY day, key_id, model",
            "SELECT sum(refusals) FROM refusals_per_minute",
            "SELECT model, scope_id, answers FROM learned_figures ORDER BY 1, 2",
        )
    ]


async def test_only_requests_and_counts_of_refusals_go(
    begin: Begin, journal: JournalFile, dropper: Retention, now: datetime
) -> None:
    """The day on which the policy begins stays, the one before goes; sums and windows stay."""
    served(journal, 31, 30, 0)
    service = await begin()
    await service.drain()
    before = await kept(service)
    dropped = await dropper.keep(30, [now])
    assert [(now - timedelta(days=31)).date()] == dropped
    assert before | {"ledger": 2, "refusals_per_minute": 2} == await kept(service)
    assert (3, 1) == (before["ledger"], before["usage_daily"])
    assert 90 == (await service.windows())[KEY, "total"]


async def test_what_is_dropped_and_what_is_kept_is_audited(
    begin: Begin, journal: JournalFile, dropper: Retention, now: datetime
) -> None:
    """Whoever looks for a day finds when it went, and by which policy."""
    service = await without_old_day(begin, journal, dropper, now)
    await dropper.keep(30, [now])
    rows = await service.ledger.fetch("SELECT actor, action FROM admin_audit ORDER BY id")
    assert [("metering", "ledger_policy_changed"), ("metering", "ledger_day_dropped")] == [
        tuple(row) for row in rows
    ]


async def test_files_that_outlive_their_days_are_not_billed_again(
    begin: Begin, journal: JournalFile, now: datetime
) -> None:
    """Days dropped, marks forgotten, everything read once more: every sum is the same."""
    for days in (40, 35, 1):
        served(journal, days)
        journal.rotate()
    service = await begin(ledger_days=30)
    await service.drain()
    before, rows = await sums(service), 1
    assert rows == await service.count("ledger")
    await service.ledger.execute("DELETE FROM journal_files")
    again = await begin(ledger_days=30)
    await again.beat(times=2)
    assert before == await sums(again)
    assert rows == await again.count("ledger")


async def test_a_request_of_a_dropped_day_is_a_dead_letter(
    begin: Begin, journal: JournalFile, dropper: Retention, now: datetime
) -> None:
    """Nothing is left that knows whether it was billed: it is set aside and counted, the rest is billed."""
    service = await without_old_day(begin, journal, dropper, now)
    before = await sums(service)
    served(journal, 40)
    journal.append(journal.opened(journal.new_id(at_ms=journal.begun_ms - 40 * DAY)))
    await service.drain()
    assert before == await sums(service)
    served(journal, 0)
    await service.drain()
    letters = await service.ledger.fetch("SELECT reason FROM dead_letters")
    assert ["too_old"] * 3 == [letter["reason"] for letter in letters]
    assert (1, 0) == (await service.count("ledger"), await service.count("open_requests"))


@pytest.mark.parametrize("kind", ["record", "open line", "refusal"])
async def test_days_are_dropped_while_metering_runs(
    begin: Begin, journal: JournalFile, dropper: Retention, now: datetime, kind: str
) -> None:
    """One line alone, of any kind, is refused by the day that was dropped a moment ago."""
    service = await without_old_day(begin, journal, dropper, now)
    before = await sums(service)
    late = journal.new_id(at_ms=journal.begun_ms - 40 * DAY)
    lines = {
        "record": journal.ended(late),
        "open line": journal.opened(late),
        "refusal": journal.ended(late, **STRANGER),
    }
    journal.append(lines[kind])
    await service.drain()
    letters = await service.ledger.fetch("SELECT reason FROM dead_letters")
    assert ["too_old"] == [letter["reason"] for letter in letters]
    assert (before, 0) == (await sums(service), await service.count("open_requests"))


async def test_a_mark_lives_as_long_as_its_file(begin: Begin, journal: JournalFile) -> None:
    """A file that is still there is never read from its beginning again, however long ago it was read."""
    journal.request()
    old = journal.rotate()
    journal.request()
    gone = journal.rotate()
    packed = journal.compress(old)
    service = await begin()
    await service.drain()
    await service.ledger.execute("UPDATE journal_files SET updated_at = now() - interval '90 days'")
    marks = await service.count("journal_files")
    gone.unlink()
    service.clock.seconds += 3600
    await service.beat()
    assert packed.exists()
    assert marks - 1 == await service.count("journal_files")


async def test_nothing_goes_without_a_policy(begin: Begin, journal: JournalFile) -> None:
    """By default the ledger is kept for all time."""
    served(journal, 3000)
    service = await begin()
    await service.drain()
    before = await kept(service)
    service.clock.seconds += 3600
    await service.beat()
    assert before == await kept(service)


async def test_a_day_the_policy_keeps_can_not_be_dropped(
    begin: Begin, journal: JournalFile, database: str, dropper: Retention, now: datetime
) -> None:
    """Postgres refuses by its own clock and the stored policy, whoever asks."""
    served(journal, 10)
    service = await begin()
    await service.drain()
    await dropper.keep(30, [now])
    with pytest.raises(asyncpg.RaiseError, match="the policy keeps the ledger"):
        await service.ledger.execute("SELECT close_ledger_day($1)", (now - timedelta(days=10)).date())
    assert 1 == await service.count("ledger")


@pytest.mark.parametrize("hours", [-2, 2, 24 * 400])
async def test_clocks_that_disagree_drop_nothing(
    begin: Begin, journal: JournalFile, dropper: Retention, now: datetime, hours: int
) -> None:
    """A clock that has jumped, metering's, Redis's or Postgres's, costs no day."""
    served(journal, 40)
    service = await begin()
    await service.drain()
    with pytest.raises(ClocksDisagreeError, match="set them right"):
        await dropper.keep(30, [now, now + timedelta(hours=hours)])
    assert 1 == await service.count("ledger")


async def test_a_reader_of_the_ledger_delays_only_the_drop(
    begin: Begin, journal: JournalFile, database: str, now: datetime
) -> None:
    """While a reader is at it, the day waits half detached; settlement goes on, the next round ends it."""
    served(journal, 40, 39, 0)
    service = await begin()
    await service.drain()
    reader = await asyncpg.connect(database)
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("SELECT count(*) FROM ledger")
    async with Retention.opened(database) as impatient:
        await impatient._run("SET lock_timeout = '100ms'")
        with pytest.raises(StoreUnavailable):
            await impatient.keep(30, [now])
    journal.request()
    await service.drain()
    assert 120 == (await service.windows())[KEY, "total"]
    await reading.rollback()
    await reader.close()
    async with Retention.opened(database) as patient:
        assert 2 == len(await patient.keep(30, [now]))
    assert 2 == await service.count("ledger")


async def test_a_day_not_yet_published_is_not_dropped(
    begin: Begin, journal: JournalFile, dropper: Retention, now: datetime
) -> None:
    """Redis knows every row before the row may go; no later day goes before it."""
    served(journal, 40, 39)
    service = await begin()
    await service.drain()
    await service.ledger.execute(
        "INSERT INTO unpublished (request_id, entry, tenant_id, key_id)"
        " SELECT request_id, entry, tenant_id, key_id FROM ledger ORDER BY request_id LIMIT 1"
    )
    assert [] == await dropper.keep(30, [now])
    assert 2 == await service.count("ledger")


async def test_the_days_ahead_have_partitions(begin: Begin, journal: JournalFile, now: datetime) -> None:
    """A week is made ahead, so that midnight is like any other moment, also one that passes just now."""
    service = await begin()
    await service.drain()
    days = set(await service.store.partitions())
    assert {now.date() + timedelta(days=ahead) for ahead in range(1, 8)} <= days


async def test_sums_that_nothing_needs_any_more_go(
    begin: Begin, journal: JournalFile, dropper: Retention, now: datetime
) -> None:
    """Days of budgets, dead letters and line numbers end with the policy; months and totals stay."""
    journal.append(b"garbage\n")
    served(journal, 31)
    service = await begin()
    await service.drain()
    day = (now - timedelta(days=200)).date()
    await service.ledger.execute("UPDATE budget_windows SET start = $1 WHERE period = 'day'", day)
    await service.ledger.execute("UPDATE dead_letters SET at = $1", now - timedelta(days=32))
    await dropper.keep(30, [now])
    assert {"month", "total"} == {period for _, period in await service.windows()}
    assert 0 == await service.count("dead_letters")

"""Rows that no line stands for and that Postgres refuses: set aside, and the bill goes on."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from metering.orphans import add_each
from metering.rows import NO_BOOT, LedgerRow
from tests.metering.conftest import Begin
from tests.metering.test_orphans import UNSEEN, entries
from tests.metering.writing import KEY, NODE, START, TENANT, JournalFile


async def test_an_orphan_that_postgres_refuses_stops_no_other(begin: Begin, journal: JournalFile) -> None:
    """A day that somebody has detached: what ran on it is set aside, the rest is settled, lines go on."""
    day_before = journal.new_id(at_ms=journal.begun_ms - 86_400_000)
    journal.append(journal.opened(day_before))
    journal.append(journal.opened(journal.new_id()))
    life = await begin()
    await life.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await life.drain()
    await life.ledger.execute("ALTER TABLE ledger DETACH PARTITION ledger_20261124")
    journal.start()
    journal.request()
    await life.drain()
    assert [(0, "completed", 30, "reported"), (0, "orphaned", UNSEEN, "progress")] == sorted(
        await entries(life), key=lambda entry: entry[1]
    )
    letters = await life.ledger.fetch("SELECT reason, raw FROM dead_letters")
    assert ["row_orphaned"] == [letter["reason"] for letter in letters]
    assert str(day_before).encode() in letters[0]["raw"]


async def test_a_swept_row_that_postgres_refuses_stops_no_other(begin: Begin, journal: JournalFile) -> None:
    """A reservation of a day that is detached is set aside; the duties go on."""
    life = await begin()
    day_before = journal.new_id(at_ms=journal.begun_ms - 86_400_000)
    rows = [swept_row(day_before), swept_row(journal.new_id())]
    await life.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await life.ledger.execute("ALTER TABLE ledger DETACH PARTITION ledger_20261124")
    async with life.store.transaction():
        added = await add_each(life.store, rows, node=NODE)
    assert {rows[1].request_id} == added
    assert ["row_swept"] == [
        letter["reason"] for letter in await life.ledger.fetch("SELECT reason FROM dead_letters")
    ]


async def test_a_row_that_is_refused_again_is_set_aside_once(begin: Begin, journal: JournalFile) -> None:
    """Redis holds its reservation, so every sweep finds it: the dead letters do not grow by that."""
    life = await begin()
    await life.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await life.ledger.execute("ALTER TABLE ledger DETACH PARTITION ledger_20261124")
    row = swept_row(journal.new_id(at_ms=journal.begun_ms - 86_400_000))
    for minutes in range(3):
        again = row._replace(at=row.at + timedelta(minutes=minutes))
        async with life.store.transaction():
            assert set() == await add_each(life.store, [again], node=NODE)
    assert 1 == await life.count("dead_letters")


def swept_row(request_id: UUID) -> LedgerRow:
    """The row of a reservation that no journal knows."""
    return LedgerRow(
        request_id,
        0,
        START,
        NODE,
        NO_BOOT,
        tenant_id=TENANT,
        key_id=KEY,
        outcome="swept",
        usage_source="none",
    )

"""Rows that no line stands for and that Postgres refuses: set aside, and the bill goes on."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from metering.orphans import add_each
from metering.rows import NO_BOOT, LedgerRow
from tests.metering.conftest import Begin, Life
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


DETACH = "ALTER TABLE ledger DETACH PARTITION ledger_20261124"
ATTACH = (
    "ALTER TABLE ledger ATTACH PARTITION ledger_20261124 FOR VALUES"
    " FROM ('01a20ada-2c00-0000-0000-000000000000') TO ('01a21000-8800-0000-0000-000000000000')"
)
WANT = "UPDATE dead_letters SET is_replay_wanted = true, replayed_at = NULL"


async def replay(life: Life) -> int:
    """Replay every dead letter; answers how many were settled."""
    await life.ledger.execute(WANT)
    await life.beat(times=6)
    found: int = await life.ledger.fetchval("SELECT count(replayed_at) FROM dead_letters")
    return found


async def test_an_orphan_that_was_refused_is_replayed(begin: Begin, journal: JournalFile) -> None:
    """Once Postgres takes it, it is billed as it was priced: once, in every sum, whatever is repeated."""
    day_before = journal.new_id(at_ms=journal.begun_ms - 86_400_000)
    journal.append(journal.opened(day_before))
    life = await begin()
    await life.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await life.drain()
    await life.ledger.execute(DETACH)
    journal.start()
    await life.drain()
    assert 0 == await replay(life)
    await life.ledger.execute(ATTACH)
    for _ in range(2):
        assert 1 == await replay(life)
    assert [(0, "orphaned", UNSEEN, "progress")] == await entries(life)
    assert UNSEEN == (await life.windows())[KEY, "total"] == await life.used_in_redis("t:t")
    journal.append(journal.ended(day_before))
    await life.drain()
    assert 30 == (await life.windows())[KEY, "total"]
    assert [(1, 30)] == [
        tuple(row)
        for row in await life.ledger.fetch("SELECT requests, input_tokens + output_tokens FROM usage_daily")
    ]


async def test_a_swept_row_that_was_refused_is_replayed(begin: Begin, journal: JournalFile) -> None:
    """It is in the ledger, for nothing, and waits in the outbox until Redis has let go of it."""
    life = await begin()
    row = swept_row(journal.new_id(at_ms=journal.begun_ms - 86_400_000))
    await life.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await life.ledger.execute(DETACH)
    async with life.store.transaction():
        assert set() == await add_each(life.store, [row], node=NODE)
    await life.ledger.execute(ATTACH)
    assert 1 == await replay(life)
    (found,) = await life.rows()
    assert {name: value for name, value in row._asdict().items() if value is not None} == {
        name: value for name, value in found.items() if value is not None
    }
    assert 0 == await life.count("unpublished")

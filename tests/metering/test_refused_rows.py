"""Rows that no line stands for and that Postgres refuses: set aside, and the bill goes on."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from metering.orphans import add_each
from metering.rows import NO_BOOT, LedgerRow
from tests.metering.conftest import Begin, Service
from tests.metering.test_orphans import UNSEEN, entries
from tests.metering.writing import KEY, NODE, START, TENANT, JournalFile


async def test_an_orphan_that_postgres_refuses_stops_no_other(begin: Begin, journal: JournalFile) -> None:
    """A day that was detached by hand: what ran on it is set aside, the rest is settled, lines go on."""
    day_before = journal.new_id(at_ms=journal.begun_ms - 86_400_000)
    journal.append(journal.opened(day_before))
    journal.append(journal.opened(journal.new_id()))
    service = await begin()
    await service.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await service.drain()
    await service.ledger.execute("ALTER TABLE ledger DETACH PARTITION ledger_20261124")
    journal.start()
    journal.request()
    await service.drain()
    assert [(0, "completed", 30, "reported"), (0, "orphaned", UNSEEN, "progress")] == sorted(
        await entries(service), key=lambda entry: entry[1]
    )
    letters = await service.ledger.fetch("SELECT reason, raw FROM dead_letters")
    assert ["row_orphaned"] == [letter["reason"] for letter in letters]
    assert str(day_before).encode() in letters[0]["raw"]


async def test_a_swept_row_that_postgres_refuses_stops_no_other(begin: Begin, journal: JournalFile) -> None:
    """A reservation of a day that is detached is set aside; the duties go on."""
    service = await begin()
    day_before = journal.new_id(at_ms=journal.begun_ms - 86_400_000)
    rows = [swept_row(day_before), swept_row(journal.new_id())]
    await service.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await service.ledger.execute("ALTER TABLE ledger DETACH PARTITION ledger_20261124")
    async with service.store.transaction():
        added = await add_each(service.store, rows, node=NODE)
    assert {rows[1].request_id} == added
    assert ["row_swept"] == [
        letter["reason"] for letter in await service.ledger.fetch("SELECT reason FROM dead_letters")
    ]


async def test_a_row_that_is_refused_again_is_set_aside_once(begin: Begin, journal: JournalFile) -> None:
    """Redis holds its reservation, so every sweep finds it: the dead letters do not grow by that."""
    service = await begin()
    await service.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await service.ledger.execute("ALTER TABLE ledger DETACH PARTITION ledger_20261124")
    row = swept_row(journal.new_id(at_ms=journal.begun_ms - 86_400_000))
    for minutes in range(3):
        again = row._replace(at=row.at + timedelta(minutes=minutes))
        async with service.store.transaction():
            assert set() == await add_each(service.store, [again], node=NODE)
    assert 1 == await service.count("dead_letters")


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


async def replay(service: Service) -> int:
    """Replay every dead letter; answers how many were settled."""
    await service.ledger.execute(WANT)
    await service.beat(times=6)
    found: int = await service.ledger.fetchval("SELECT count(replayed_at) FROM dead_letters")
    return found


async def test_an_orphan_that_was_refused_is_replayed(begin: Begin, journal: JournalFile) -> None:
    """Once Postgres takes it, it is billed as it was priced: once, in every sum, whatever is repeated."""
    day_before = journal.new_id(at_ms=journal.begun_ms - 86_400_000)
    journal.append(journal.opened(day_before))
    service = await begin()
    await service.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await service.drain()
    await service.ledger.execute(DETACH)
    journal.start()
    await service.drain()
    assert 0 == await replay(service)
    await service.ledger.execute(ATTACH)
    for _ in range(2):
        assert 1 == await replay(service)
    assert [(0, "orphaned", UNSEEN, "progress")] == await entries(service)
    assert UNSEEN == (await service.windows())[KEY, "total"] == await service.used_in_redis("t:t")
    journal.append(journal.ended(day_before))
    await service.drain()
    assert 30 == (await service.windows())[KEY, "total"]
    assert [(1, 30)] == [
        tuple(row)
        for row in await service.ledger.fetch(
            "SELECT requests, input_tokens + output_tokens FROM usage_daily"
        )
    ]


async def test_a_swept_row_that_was_refused_is_replayed(begin: Begin, journal: JournalFile) -> None:
    """It is in the ledger, for nothing, and waits in the outbox until Redis has let go of it."""
    service = await begin()
    row = swept_row(journal.new_id(at_ms=journal.begun_ms - 86_400_000))
    await service.ledger.execute("SELECT ensure_ledger_partition('2026-11-24')")
    await service.ledger.execute(DETACH)
    async with service.store.transaction():
        assert set() == await add_each(service.store, [row], node=NODE)
    await service.ledger.execute(ATTACH)
    assert 1 == await replay(service)
    (found,) = await service.rows()
    assert {name: value for name, value in row._asdict().items() if value is not None} == {
        name: value for name, value in found.items() if value is not None
    }
    assert 0 == await service.count("unpublished")

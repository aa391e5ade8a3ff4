"""The duties beside the loop: a failure of one stops neither the loop nor another, and is repeated."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from authz import versions
from authz.limiter.limiter import Limiter
from authz.store import Store
from authz.types import OpenRequest
from metering import retention, upkeep
from metering.ledger_store import LedgerStore
from metering.metrics import Metrics
from metering.orphans import sweep
from metering.surroundings import Surroundings
from metering.upkeep import Upkeep
from tests.metering.conftest import Begin, Life
from tests.metering.writing import KEY, NODE, START, JournalFile


def failures(life: Life, duty: str) -> float:
    """How often a duty has failed."""
    text = life.upkeep._around.metrics.text().decode()
    found = [
        line for line in text.splitlines() if line.startswith(f'gateway_duty_failures_total{{duty="{duty}"')
    ]
    return float(found[0].split()[-1]) if found else 0.0


async def test_a_duty_that_fails_is_counted_and_repeated_later(begin: Begin, journal: JournalFile) -> None:
    """The ledger's days can't be made: the bill, the catch-up and the loop go on; retries grow rarer."""
    life = await begin()
    await life.ledger.execute("ALTER FUNCTION ensure_ledger_partition RENAME TO renamed")
    await life.drain()
    assert 1 == failures(life, "ledger")
    for _ in range(8):
        await life.beat()
    assert 4 == failures(life, "ledger")
    assert (0, 0) == (failures(life, "catch_up"), failures(life, "sweep"))
    await life.ledger.execute("ALTER FUNCTION renamed RENAME TO ensure_ledger_partition")
    journal.request()
    await life.beat(times=10)
    assert 4 == failures(life, "ledger")
    assert 30 == (await life.windows())[KEY, "total"]
    assert await life.store.partitions()


async def test_an_unexpected_failure_stops_no_other_duty(
    begin: Begin, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the program in one duty is a failure like any other: what comes after it is done."""

    async def fail(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(versions, "publish", fail)
    life = await begin()
    await life.ledger.execute("SELECT ensure_ledger_partition('2026-11-25')")
    journal.request()
    while await life.metering.step():
        pass
    await life.ledger.execute(
        "INSERT INTO unpublished (tenant_id, request_id, entry, key_id)"
        " SELECT tenant_id, request_id, entry, key_id FROM ledger"
    )
    await life.upkeep.round()
    assert 1 == failures(life, "versions")
    assert 0 == await life.count("unpublished")


async def until(life: Life, query: str) -> None:
    """Wait until a query finds something."""
    while not await life.ledger.fetchval(query):
        await asyncio.sleep(0.02)


@pytest.mark.timeout(60)
async def test_a_lost_connection_is_made_anew(
    begin: Begin, database: str, limiter: Limiter, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Postgres ends the duties' connection they take another, and go on."""
    monkeypatch.setattr(upkeep, "TICK_S", 0.01)
    life = await begin()
    around = Surroundings(
        journal.path, database, "", clock=lambda: START, metrics=Metrics(CollectorRegistry())
    )
    started: list[int] = []

    def start(ledger: LedgerStore, names: Store) -> Upkeep:
        started.append(ledger._connection.get_server_pid())
        return Upkeep(NODE, around, limiter, life.metering.finished, ledger, names)

    async with upkeep.beside(start, database):
        await until(life, "SELECT 1 FROM pg_inherits")
        await life.ledger.execute("SELECT pg_terminate_backend($1)", started[0])
        while len(started) < 2:
            await asyncio.sleep(0.02)
    assert started[0] != started[1]


async def test_a_stop_during_a_stand_back_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that comes while the duties are being ended ends the process all the same."""
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def slow_to_end(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    async def stand_back() -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with upkeep.beside(lambda *_: pytest.fail("nothing is followed"), ""):
                await asyncio.sleep(0)
                raise ZeroDivisionError

    monkeypatch.setattr(upkeep, "follow", slow_to_end)
    life = asyncio.create_task(stand_back())
    await ending.wait()
    life.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await life


async def test_a_sweep_asks_for_many_tenants_at_once(
    begin: Begin, limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five thousand tenants are asked for in a few pipelines, and none is left out."""
    life = await begin()
    await life.ledger.execute(
        "INSERT INTO tenants (id, name) SELECT gen_random_uuid(), 't' || i FROM generate_series(1, 5000) AS i"
    )
    await life.ledger.execute("INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $1, $2)", NODE, START)
    running, most = 0, 0
    asked: set[UUID] = set()
    overdue = Limiter.overdue

    async def counted(self: Limiter, tenant: UUID, before: datetime) -> tuple[OpenRequest, ...]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        asked.add(tenant)
        found = await overdue(self, tenant, before)
        running -= 1
        return found

    monkeypatch.setattr(Limiter, "overdue", counted)
    await sweep(life.store, limiter, node=NODE, at=START)
    assert (5000, 500) == (len(asked), most)


async def test_committed_files_are_removed_and_no_others(
    begin: Begin, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotated files go when they are read to their end and enough came after them."""
    monkeypatch.setattr(retention, "KEPT_FILES", 2)
    olds = []
    for _ in range(5):
        journal.request()
        olds.append(journal.rotate())
    life = await begin()
    while await life.metering.step():
        pass
    assert 5 == sum(path.exists() for path in olds)
    await life.upkeep.round()
    assert [False, False, False, True, True] == [path.exists() for path in olds]

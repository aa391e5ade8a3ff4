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
from tests.metering.conftest import Begin, Service
from tests.metering.writing import KEY, NODE, START, JournalFile


def failures(service: Service, duty: str) -> float:
    """How often a duty has failed."""
    text = service.upkeep._around.metrics.text().decode()
    found = [
        line for line in text.splitlines() if line.startswith(f'gateway_duty_failures_total{{duty="{duty}"')
    ]
    return float(found[0].split()[-1]) if found else 0.0


async def test_a_duty_that_fails_is_counted_and_repeated_later(begin: Begin, journal: JournalFile) -> None:
    """The ledger's days can't be made: the bill, the catch-up and the loop go on; retries grow rarer."""
    service = await begin()
    await service.ledger.execute("ALTER FUNCTION ensure_ledger_partition RENAME TO renamed")
    await service.drain()
    assert 1 == failures(service, "ledger")
    for _ in range(8):
        await service.beat()
    assert 4 == failures(service, "ledger")
    assert (0, 0) == (failures(service, "catch_up"), failures(service, "sweep"))
    await service.ledger.execute("ALTER FUNCTION renamed RENAME TO ensure_ledger_partition")
    journal.request()
    await service.beat(times=10)
    assert 4 == failures(service, "ledger")
    assert 30 == (await service.windows())[KEY, "total"]
    assert await service.store.partitions()


async def test_an_unexpected_failure_stops_no_other_duty(
    begin: Begin, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the program in one duty is a failure like any other: what comes after it is done."""

    async def fail(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(versions, "publish", fail)
    service = await begin()
    await service.ledger.execute("SELECT ensure_ledger_partition('2026-11-25')")
    journal.request()
    while await service.metering.step():
        pass
    await service.ledger.execute(
        "INSERT INTO unpublished (tenant_id, request_id, entry, key_id)"
        " SELECT tenant_id, request_id, entry, key_id FROM ledger"
    )
    await service.upkeep.round()
    assert 1 == failures(service, "versions")
    assert 0 == await service.count("unpublished")


async def until(service: Service, query: str) -> None:
    """Wait until a query finds something."""
    while not await service.ledger.fetchval(query):
        await asyncio.sleep(0.02)


@pytest.mark.timeout(60)
async def test_a_lost_connection_is_made_anew(
    begin: Begin, database: str, limiter: Limiter, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Postgres ends the duties' connection they take another, and go on."""
    monkeypatch.setattr(upkeep, "TICK_S", 0.01)
    service = await begin()
    around = Surroundings(
        journal.path, database, "", clock=lambda: START, metrics=Metrics(CollectorRegistry())
    )
    started: list[int] = []

    def start(ledger: LedgerStore, names: Store) -> Upkeep:
        started.append(ledger._connection.get_server_pid())
        return Upkeep(NODE, around, limiter, service.metering.finished, ledger, names)

    async with upkeep.beside(start, database):
        await until(service, "SELECT 1 FROM pg_inherits")
        await service.ledger.execute("SELECT pg_terminate_backend($1)", started[0])
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
    service = asyncio.create_task(stand_back())
    await ending.wait()
    service.cancel()
    await asyncio.sleep(0)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await service


async def test_a_sweep_asks_for_many_tenants_at_once(
    begin: Begin, limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five thousand tenants are asked for in a few pipelines, and none is left out."""
    service = await begin()
    await service.ledger.execute(
        "INSERT INTO tenants (id, name) SELECT gen_random_uuid(), 't' || i FROM generate_series(1, 5000) AS i"
    )
    await service.ledger.execute("INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $1, $2)", NODE, START)
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
    await sweep(service.store, limiter, node=NODE, at=START)
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
    service = await begin()
    while await service.metering.step():
        pass
    assert 5 == sum(path.exists() for path in olds)
    await service.upkeep.round()
    assert [False, False, False, True, True] == [path.exists() for path in olds]

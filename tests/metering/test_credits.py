"""Corrections reach Redis, survive whatever is lost, and settlements leave them alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from attrs import define
from prometheus_client import CollectorRegistry

from authz import settings
from authz.accounts.credits import Credit, credit_request, credit_tenant
from authz.accounts.session import Session
from authz.errors import CommandError
from authz.limiter.limiter import Limiter
from authz.rebuild import Rebuilder
from authz.store import ADMIN_ROLE, Store
from metering.books import Books
from metering.metrics import LEDGER_WINDOWS, WINDOWS_REDIS, Metrics
from metering.reconcile import Reconciler
from tests.metering.conftest import Begin, Service
from tests.metering.test_orphans import add_tenant
from tests.metering.writing import KEY, LOOKUP, START, TENANT, JournalFile

TODAY = date(2026, 11, 25)
TOKENS = 30
SUMS = "SELECT request_id, sum(input_tokens + output_tokens) AS tokens FROM ledger GROUP BY 1"


@define
class World:
    """A tenant whose requests metering settles, and an operator who corrects the bill."""

    service: Service
    session: Session

    async def credit(self, request: UUID, tokens: int, reason: str = "why") -> Credit:
        """Credit a request."""
        return await credit_request(self.session, request, tokens=tokens, reason=reason, at=START)

    async def credit_today(self, tokens: int, prefix: str | None = None, reason: str = "why") -> Credit:
        """Credit the tenant."""
        return await credit_tenant(
            self.session, "acme", prefix=prefix, tokens=tokens, reason=reason, at=START
        )

    async def used(self) -> tuple[set[int], set[int]]:
        """What Postgres and Redis say of each window of tenant and key."""
        in_redis = [
            await self.service.used_in_redis(f"{scope}:{window}")
            for scope in ("t", KEY)
            for window in ("t", "m:2026-11", "d:2026-11-25")
        ]
        return set((await self.service.windows()).values()), set(in_redis)

    async def drift(self, database: str) -> list[float | None]:
        """What one walk through the books finds, without anything that repairs it."""
        registry, books = CollectorRegistry(), await Books.connect(database)
        await Reconciler(books, self.session.limiter, Metrics(registry), lambda: 0.0).round(TODAY)
        await books.close()
        return [
            registry.get_sample_value("gateway_drift_tokens", {"between": between})
            for between in (LEDGER_WINDOWS, WINDOWS_REDIS)
        ]


@pytest.fixture
async def world(
    begin: Begin, database: str, redis_url: str, tmp_path: Path, limiter: Limiter
) -> AsyncIterator[World]:
    """Metering on an empty journal, and an open session."""
    await limiter.create(TENANT, 1)
    service = await begin()
    await add_tenant(service)
    environ = {"DATABASE_URL": database, "REDIS_URL": redis_url, "GATEWAY_STATE": str(tmp_path)}
    store = Store(database, role=ADMIN_ROLE)
    yield World(service, Session(settings.load(environ), store, limiter, "tester"))
    await store.close()


async def test_redis_follows_within_two_beats(world: World, journal: JournalFile, database: str) -> None:
    """A correction lowers Redis's totals within two beats; the books agree, nothing is left over."""
    request = journal.request()
    await world.service.beat()
    assert ({TOKENS}, {TOKENS}) == await world.used()
    await world.credit(request, 10)
    await world.credit_today(5, LOOKUP)
    await world.service.beat(times=2)
    assert ({TOKENS - 15}, {TOKENS - 15}) == await world.used()
    assert 0 == await world.service.count("unpublished")
    assert [0, 0] == await world.drift(database)


async def test_a_credit_to_a_tenant_alone_is_no_drift(
    world: World, journal: JournalFile, database: str
) -> None:
    """The tenant's windows are lower than its keys' together, and the reconciler finds that right."""
    journal.request()
    await world.service.beat()
    await world.credit_today(12)
    await world.service.beat(times=2)
    assert [0, 0] == await world.drift(database)
    assert (TOKENS - 12, TOKENS) == (
        await world.service.used_in_redis("t:t"),
        await world.service.used_in_redis(f"{KEY}:t"),
    )


async def test_a_correction_of_before_is_published_after_a_start(
    world: World, journal: JournalFile, begin: Begin
) -> None:
    """Metering that was away publishes what was corrected meanwhile, once, however often it starts."""
    request = journal.request()
    await world.service.beat()
    await world.credit(request, 10)
    for _ in range(2):
        world.service = await begin()
        await world.service.beat()
        assert ({TOKENS - 10}, {TOKENS - 10}) == await world.used()


async def test_a_journal_read_again_leaves_corrections_alone(
    world: World, journal: JournalFile, begin: Begin
) -> None:
    """A replayed record neither takes a correction back nor repeats it."""
    request = journal.request()
    await world.service.beat()
    await world.credit(request, 10)
    await world.service.ledger.execute("DELETE FROM journal_files")
    world.service = await begin()
    await world.service.beat()
    assert ({TOKENS - 10}, {TOKENS - 10}) == await world.used()
    assert [0, 2] == [row["entry"] for row in await world.service.rows()]


async def test_a_flushed_redis_gets_the_corrected_totals(
    world: World, journal: JournalFile, limiter: Limiter, store: Store
) -> None:
    """What is rebuilt after a loss are the windows, corrections included."""
    request = journal.request()
    await world.service.beat()
    await world.credit(request, 10)
    await world.service.beat()
    await world.service.redis.flushall()
    rebuilder = Rebuilder(store, limiter)
    await rebuilder._step(TENANT)
    limiter.clock_us += 3_000_000
    await world.service.ledger.execute("UPDATE nodes SET eof_at = now() + interval '1 year'")
    await rebuilder._step(TENANT)
    await rebuilder.close()
    assert ({TOKENS - 10}, {TOKENS - 10}) == await world.used()


async def test_settlements_and_corrections_at_once(world: World, journal: JournalFile, database: str) -> None:
    """They lock in one order: none deadlocks, none is lost, and the books agree."""
    requests = [journal.request() for _ in range(8)]
    await world.service.beat()
    for each in range(6):
        for _ in range(20):
            journal.request()
        credits_ = [world.credit(request, 2, f"reason {each}") for request in requests[each:]]
        credits_ += [world.credit_today(1, prefix, f"reason {each}") for prefix in (LOOKUP, None)]
        await asyncio.gather(world.service.drain(), *credits_)
    await world.service.beat()
    assert [0, 0] == await world.drift(database)
    left = (8 + 6 * 20) * TOKENS - 2 * (8 + 7 + 6 + 5 + 4 + 3)
    windows = await world.service.windows()
    assert (left - 12, left - 6) == (windows[TENANT, "total"], windows[KEY, "total"])


async def late(world: World, journal: JournalFile, request: UUID) -> None:
    """The record of an orphan comes after all."""
    journal.append(journal.ended(request))
    await world.service.drain()


@pytest.mark.parametrize(("credited", "left"), [(33, 0), (20, 10)])
async def test_a_late_record_takes_back_what_is_left(
    world: World, journal: JournalFile, database: str, credited: int, left: int
) -> None:
    """An orphan that was credited and then ends at 30 tokens: corrections stand, the sum is not below 0."""
    request = journal.new_id()
    journal.append(journal.opened(request))
    journal.start()
    await world.service.beat()
    await world.credit(request, credited)
    await late(world, journal, request)
    await world.service.beat()
    assert ({left}, {left}) == await world.used()
    assert [0, 0] == await world.drift(database)


async def test_a_late_record_and_a_correction_at_once(
    world: World, journal: JournalFile, database: str
) -> None:
    """Whichever comes first, no request's sum is below 0."""
    requests = [journal.new_id() for _ in range(20)]
    for request in requests:
        journal.append(journal.opened(request))
    journal.start()
    await world.service.beat()
    for request in requests:
        await asyncio.gather(
            late(world, journal, request), world.credit(request, 250), return_exceptions=True
        )
    sums = {row["request_id"]: row["tokens"] for row in await world.service.ledger.fetch(SUMS)}
    assert set(sums) == set(requests)
    assert set(sums.values()) <= {0, TOKENS}
    assert [0, 0] == [abs(drift or 0) for drift in await world.drift(database)]


async def test_what_runs_is_not_credited_before_it_is_billed(world: World, journal: JournalFile) -> None:
    """A request that is open is refused, and credited once its record has come."""
    request = journal.new_id()
    journal.append(journal.opened(request))
    await world.service.beat()
    with pytest.raises(CommandError, match="still runs"):
        await world.credit(request, 1)
    journal.append(journal.ended(request))
    await world.service.beat()
    await world.credit(request, 1)
    assert timedelta(0) == (await world.service.rows())[1]["at"] - START

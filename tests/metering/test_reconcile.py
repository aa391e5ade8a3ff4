"""B3: the ledger, the windows and Redis's counters are compared, and repaired from the one before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from itertools import count

import pytest
from attrs import define
from prometheus_client import CollectorRegistry

from authz.limiter import keyspace
from authz.limiter.limiter import Limiter
from metering import reconcile
from metering.books import Books
from metering.metrics import LEDGER_WINDOWS, WINDOWS_REDIS, Metrics
from metering.reconcile import Reconciler
from tests.metering.conftest import Begin, Service
from tests.metering.writing import KEY, TENANT, JournalFile

TODAY = date(2026, 11, 25)
TOKENS = 30


@define
class World:
    """A tenant whose requests are settled, and what compares its books."""

    service: Service
    books: Books
    reconciler: Reconciler
    registry: CollectorRegistry

    async def drift(self) -> tuple[int, int]:
        """The tokens that one walk through all tenants finds, between the two pairs of books."""
        await self.reconciler.round(TODAY)
        gauges = [
            self.registry.get_sample_value("gateway_drift_tokens", {"between": between})
            for between in (LEDGER_WINDOWS, WINDOWS_REDIS)
        ]
        return int(gauges[0] or 0), int(gauges[1] or 0)

    async def used(self) -> tuple[set[int], set[int]]:
        """What Postgres and Redis say of each window."""
        in_postgres = await self.service.ledger.fetch("SELECT used FROM budget_windows")
        found = await self.service.redis.hgetall(keyspace.tenant(TENANT))
        in_redis = {int(value) for name, value in found.items() if name[:2] == b"u:"}
        return {row["used"] for row in in_postgres}, in_redis


@pytest.fixture
async def world(begin: Begin, database: str, journal: JournalFile, limiter: Limiter) -> AsyncIterator[World]:
    """Five requests of 30 tokens, settled and published."""
    await limiter.create(TENANT, 1)
    service = await begin()
    await service.ledger.execute("INSERT INTO tenants (id, name) VALUES ($1, 'acme')", TENANT)
    await service.ledger.execute(
        "INSERT INTO keys (id, tenant_id, name) VALUES ($1, $2, 'first')", KEY, TENANT
    )
    for _ in range(5):
        journal.request()
    await service.beat()
    registry = CollectorRegistry()
    books = await Books.connect(database)
    yield World(service, books, Reconciler(books, limiter, Metrics(registry), lambda: 0.0), registry)
    await books.close()


async def test_books_that_agree_are_left_alone(world: World) -> None:
    """After quiescence ledger = windows = Redis, and looking changes nothing."""
    before = await world.service.ledger.fetch("SELECT * FROM budget_windows")
    assert (0, 0) == await world.drift()
    assert before == await world.service.ledger.fetch("SELECT * FROM budget_windows")
    assert ({5 * TOKENS}, {5 * TOKENS}) == await world.used()


@pytest.mark.parametrize("used", [0, 7, 1000])
async def test_counters_take_over_what_the_windows_say(world: World, used: int) -> None:
    """A counter that was changed by hand, up or down, is repaired, and the difference counted."""
    field = f"u:{KEY}:d:2026-11-25"
    await world.service.redis.hset(keyspace.tenant(TENANT), field, used)
    assert (0, abs(5 * TOKENS - used)) == await world.drift()
    assert ({5 * TOKENS}, {5 * TOKENS}) == await world.used()
    assert (0, 0) == await world.drift()


async def test_a_counter_ahead_of_postgres_is_outbid(world: World) -> None:
    """After a restored backup Redis knows later versions: Postgres, which bills, comes out on top."""
    await world.service.redis.hset(keyspace.tenant(TENANT), mapping={"u:t:t": 999, "w:t:t": 50})
    assert (0, 999 - 5 * TOKENS) == await world.drift()
    assert ({5 * TOKENS}, {5 * TOKENS}) == await world.used()


async def test_a_counter_that_is_gone_is_restored(world: World) -> None:
    """A window that Redis has forgotten alone is published again."""
    await world.service.redis.hdel(keyspace.tenant(TENANT), "u:t:m:2026-11", "w:t:m:2026-11")
    assert (0, 5 * TOKENS) == await world.drift()
    assert ({5 * TOKENS}, {5 * TOKENS}) == await world.used()


async def test_windows_are_raised_to_the_ledger(world: World) -> None:
    """Tokens that windows lack are added, day, month and total, and Redis learns of them."""
    await world.service.ledger.execute("UPDATE budget_windows SET used = used - 40")
    found, _ = await world.drift()
    assert found > 0
    assert ({5 * TOKENS}, {5 * TOKENS}) == await world.used()
    assert (0, 0) == await world.drift()


async def test_a_missing_window_is_made(world: World) -> None:
    """A window without a row is one that lacks everything."""
    await world.service.ledger.execute("DELETE FROM budget_windows WHERE period = 'day'")
    found, _ = await world.drift()
    assert 4 * 5 * TOKENS == found  # of both scopes, and the months are not the sum of their days
    assert ({5 * TOKENS}, {5 * TOKENS}) == await world.used()


async def test_a_window_is_never_lowered(world: World) -> None:
    """Tokens that no ledger row explains are alarmed and kept: they refuse too much, never too little."""
    await world.service.ledger.execute("UPDATE budget_windows SET used = used + 40 WHERE period = 'day'")
    found, _ = await world.drift()
    assert 2 * (40 + 40) == found  # the months lack what their days have too much
    used, _ = await world.used()
    assert {5 * TOKENS + 40} == used


async def test_what_is_not_published_yet_is_no_drift(world: World, journal: JournalFile) -> None:
    """While Redis does not know a row yet, its tenant is not judged."""
    await world.service.ledger.execute(
        "INSERT INTO unpublished (request_id, entry, tenant_id, key_id) "
        "SELECT request_id, entry, tenant_id, key_id FROM ledger LIMIT 1"
    )
    await world.service.redis.hset(keyspace.tenant(TENANT), "u:t:t", 1)
    assert (0, 0) == await world.drift()


async def test_a_lost_redis_is_no_drift(world: World) -> None:
    """A flushed Redis is rebuilt by authz, from its mark on: nothing else writes to it meanwhile."""
    await world.service.redis.flushall()
    assert (0, 0) == await world.drift()
    assert not await world.service.redis.keys("*")


async def test_a_day_the_ledger_forgets_is_not_judged(world: World) -> None:
    """Windows stay when the ledger's old days go: an old day is compared with nothing."""
    await world.service.ledger.execute("DELETE FROM ledger")
    await world.reconciler.round(date(2026, 12, 25))
    assert 0 == world.registry.get_sample_value("gateway_drift_tokens", {"between": LEDGER_WINDOWS})


async def test_a_round_is_bounded(world: World, limiter: Limiter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round ends when its time is spent; the next goes on with the tenants that are left."""
    await world.service.ledger.execute(
        "INSERT INTO tenants (id, name) SELECT gen_random_uuid(), 't' || i FROM generate_series(1, 4) AS i"
    )
    ticks, seen = count(), []
    reckon = Books.reckon

    async def recording(books: Books, tenant: object, *days: date) -> object:
        seen.append(tenant)
        return await reckon(books, tenant, *days)  # type: ignore[arg-type]

    monkeypatch.setattr(Books, "reckon", recording)
    monkeypatch.setattr(reconcile, "TENANTS_AT_ONCE", 2)
    hasty = Reconciler(world.books, limiter, Metrics(CollectorRegistry()), lambda: float(next(ticks)))
    for _ in range(5):
        await hasty.round(TODAY)
    assert 5 == len(set(seen)) == len(seen)

"""A journal as Caddy writes it, and metering on it, one step at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from attrs import define
from redis.asyncio import Redis

from authz import settings
from authz.accounts.session import Session
from authz.limiter import keyspace
from authz.limiter.limiter import Limiter
from authz.store import ADMIN_ROLE, METERING_ROLE
from authz.store import Store as Versions
from metering.ledger_store import LedgerStore
from metering.service import Metering
from metering.surroundings import Surroundings
from metering.upkeep import Upkeep
from tests.metering.reading import Reader
from tests.metering.writing import DAY_MS, NODE, START, TENANT, JournalFile
from tests.redis_cluster import client


@pytest.fixture
def journal(tmp_path: Path) -> JournalFile:
    """An empty journal, its Caddy started."""
    written = JournalFile(tmp_path / "journal" / "journal.log")
    written.start()
    return written


@pytest.fixture
async def limiter(limiter: Limiter) -> Limiter:
    """A Limiter whose Redis's clock stands at the moment the journal's requests begin."""
    limiter.clock_us = DAY_MS * 1000
    return limiter


@pytest.fixture
def reader(journal: JournalFile) -> Iterator[Reader]:
    """A reader of the journal."""
    made = Reader(journal)
    yield made
    made.tail.close()


@define
class Clock:
    """Metering's own clocks, monotonic and of the wall: they move together, when a test moves them."""

    seconds: float = 1.0
    began: datetime = START

    def ticks(self) -> float:
        """Return the monotonic time in seconds."""
        return self.seconds

    def now(self) -> datetime:
        """Return the time of the wall clock, which began with the journal."""
        return self.began + timedelta(seconds=self.seconds)


@define
class Service:
    """Metering from its start to its end."""

    metering: Metering
    upkeep: Upkeep
    stores: tuple[LedgerStore, LedgerStore]
    ledger: asyncpg.Connection
    redis: Redis
    clock: Clock
    day: date = date(2026, 11, 25)

    @property
    def store(self) -> LedgerStore:
        """The store that the loop writes to."""
        return self.stores[0]

    async def drain(self) -> None:
        """Step until there is nothing to read, and do the duties that are due."""
        while await self.metering.step():
            pass
        await self.upkeep.round()
        while await self.metering.step():
            pass

    async def beat(self, times: int = 1) -> None:
        """Let a second pass for metering, then step until there is nothing to read, so often."""
        for _ in range(times):
            self.clock.seconds += 1
            await self.drain()

    async def end(self) -> None:
        """Let go of everything, as a dead process does."""
        self.metering.close()
        for store in self.stores:
            await store.close()

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        found: int = await self.ledger.fetchval(f"SELECT count(*) FROM {table}")  # noqa: S608
        return found

    async def used_in_redis(self, field: str) -> int:
        """What Redis believes was used of a scope's window."""
        return int(await self.redis.hget(keyspace.tenant(TENANT), f"u:{field}") or 0)

    async def rows(self) -> list[asyncpg.Record]:
        """The ledger."""
        return await self.ledger.fetch("SELECT * FROM ledger ORDER BY request_id, entry")

    async def windows(self) -> dict[tuple[UUID, str], int]:
        """What each scope has used of each period, summed over all starts."""
        found = await self.ledger.fetch(
            "SELECT scope_id, period, sum(used)::bigint FROM budget_windows GROUP BY 1, 2"
        )
        return {(scope, period): used for scope, period, used in found}


Begin = Callable[..., Awaitable[Service]]


@pytest.fixture
async def begin(
    database: str, redis_url: str, limiter: Limiter, journal: JournalFile
) -> AsyncIterator[Begin]:
    """Starts metering on the journal as often as wanted."""
    services: list[Service] = []
    versions = Versions(database, role=METERING_ROLE, connections=1)
    ledger, redis = await asyncpg.connect(database), client(redis_url)

    async def start(
        reach: Callable[[str], None] = lambda _step: None,
        *,
        ledger_days: int | None = None,
        address_days: int | None = None,
        database: str = database,
    ) -> Service:
        clock = Clock(began=datetime.fromtimestamp(journal.begun_ms / 1000, UTC))
        around = Surroundings(
            journal.path,
            database,
            "",
            ledger_days,
            address_days=address_days,
            reach=reach,
            clock=clock.now,
            ticks=clock.ticks,
        )
        stores = await LedgerStore.connect(database), await LedgerStore.connect(database)
        metering = await Metering.begin(NODE, around, ledger=stores[0], limiter=limiter)
        duties = Upkeep(NODE, around, limiter, metering.finished, stores[1], versions)
        services.append(Service(metering, duties, stores, ledger, redis, clock))
        return services[-1]

    yield start
    for service in services:
        await service.end()
    await versions.close()
    await ledger.close()
    await redis.aclose()


@pytest.fixture
def environ(database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a command line on these stores."""
    names = {"DATABASE_URL": database, "REDIS_URL": redis_url, "GATEWAY_STATE": str(tmp_path)}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "160")
    return names


@pytest.fixture
async def session(environ: dict[str, str], database: str, limiter: Limiter) -> AsyncIterator[Session]:
    """What a command holds open."""
    store = Versions(database, role=ADMIN_ROLE)
    yield Session(settings.load(environ), store, limiter, "tester")
    await store.close()

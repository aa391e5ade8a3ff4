"""`just bench-rebuild`: how long a tenant with very many keys is refused after a loss of Redis.

Real stores; the tenant has 40 days of windows of every key in Postgres. Another tenant asks for one
decision after the other on the same event loop, before the loss and during the rebuild. Exits 1 if an
aim is missed.

python -m tests.bench.bench_rebuild [--keys 100000] [--days 40]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import uvloop
from attrs import define, field, frozen
from redis.asyncio import Redis

from authz.limiter import keyspace
from authz.limiter.admission import Admitted
from authz.limiter.limiter import Limiter
from authz.rebuild import Rebuilder
from authz.schema import migrate
from authz.stack import embedded
from authz.store import AUTHZ_ROLE, Store
from authz.types import Limits
from tests.authz.asking import uuid7
from tests.authz.limiting import Desk

WITHIN_S, SCRIPT_MS, ADDED_MS = 10.0, 5.0, 2.0
"""The aims: the whole rebuild, its longest script, and what it adds to the other tenant's p99."""

PAUSE_S = 0.002
BEFORE_S = 3.0

KEYS = """
    INSERT INTO keys (id, tenant_id, name, published_version)
    SELECT gen_random_uuid(), $1, 'key-' || i, 1 FROM generate_series(1, $2::int) AS i
"""
WINDOWS = """
    INSERT INTO budget_windows (scope_id, period, start, tenant_id, used, version)
    SELECT s.id, p.period, p.start, $1::uuid, 7, 3
    FROM (SELECT id FROM keys WHERE tenant_id = $1 UNION ALL SELECT $1) AS s
    CROSS JOIN (
        SELECT 'day' AS period, $2::date - i AS start FROM generate_series(0, $3::int - 1) AS i
        UNION SELECT 'month', date_trunc('month', $2::date - i)::date FROM generate_series(0, $3 - 1) AS i
        UNION SELECT 'total', '1970-01-01'
    ) AS p
"""


@frozen
class Times:
    """What a rebuild took, and what it cost the other tenant."""

    seconds: float
    longest_script_ms: float
    p99_before_ms: float
    p99_during_ms: float

    @property
    def added_ms(self) -> float:
        """What the rebuild adds to the other tenant's p99."""
        return self.p99_during_ms - self.p99_before_ms


@define
class Lossy:
    """A tenant with many keys and one with two, on real stores."""

    owner: asyncpg.Connection
    redis: Redis
    rebuilder: Rebuilder
    other: Desk
    tenant: UUID = field(factory=uuid4)

    @classmethod
    @asynccontextmanager
    async def opened(cls, database_url: str, redis_url: str) -> AsyncIterator[Lossy]:
        """Connect as an authz process does: a rebuild has a connection of its own."""
        owner, store = await asyncpg.connect(database_url), Store(database_url, role=AUTHZ_ROLE)
        limiter, bulk = await Limiter.connect(redis_url), await Limiter.connect(redis_url)
        rebuilder = Rebuilder(store, bulk)
        async with Redis.from_url(redis_url) as redis:
            desk = Desk(limiter, redis)
            await desk.open(Limits(tokens_total=10**12), Limits(tokens_total=10**12))
            limiter.clock_us = 0
            yield cls(owner, redis, rebuilder, desk)
        await rebuilder.close()
        for part in (owner, store, limiter, bulk):
            await part.close()

    async def fill(self, keys: int, days: int) -> None:
        """Give the tenant its keys and windows, in Postgres alone; every journal has been read."""
        today = datetime.now(UTC).date()
        await self.owner.execute(
            "INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $2, now() + interval '1 hour')",
            *(uuid4(), uuid7()),
        )
        await self.owner.execute("INSERT INTO tenants (id, name) VALUES ($1, 'many')", self.tenant)
        await self.owner.execute(KEYS, self.tenant, keys)
        await self.owner.execute(WINDOWS, self.tenant, today, days, timeout=600)
        await self.owner.execute("ANALYZE")

    async def rebuild(self) -> float:
        """Lose the tenant and wait for its return; returns the seconds that took."""
        await self.redis.config_set("slowlog-log-slower-than", 100)
        await self.redis.config_set("slowlog-max-len", 100_000)
        await self.redis.slowlog_reset()
        await self.redis.delete(keyspace.tenant(self.tenant))
        began = time.monotonic()
        self.rebuilder.notice(self.tenant)
        while not self.rebuilder.is_idle:
            await asyncio.sleep(0.01)
        assert self.rebuilder.rebuilt
        return time.monotonic() - began

    async def decide(self, took_ms: list[float]) -> None:
        """Ask for the other tenant, again and again until cancelled."""
        while True:
            self.other.now = datetime.now(UTC)
            ask = self.other.ask()
            began = time.monotonic()
            assert isinstance(await self.other.limiter.admit(ask), Admitted)
            took_ms.append((time.monotonic() - began) * 1000)
            await asyncio.sleep(PAUSE_S)

    async def measure(self) -> Times:
        """Rebuild under the other tenant's eyes."""
        before, during = list[float](), list[float]()
        deciding = asyncio.create_task(self.decide(before))
        await asyncio.sleep(BEFORE_S)
        deciding.cancel()
        deciding = asyncio.create_task(self.decide(during))
        seconds = await self.rebuild()
        deciding.cancel()
        return Times(seconds, await self.longest_ms(), p99(before), p99(during))

    async def longest_ms(self) -> float:
        """The longest command that Redis has run since its log was emptied."""
        entries = await self.redis.slowlog_get(100_000)
        return max((entry["duration"] for entry in entries), default=0) / 1000


def p99(took_ms: list[float]) -> float:
    """The value that one in a hundred exceeds."""
    return sorted(took_ms)[len(took_ms) * 99 // 100]


async def run(database_url: str, redis_url: str, keys: int, days: int) -> Times:
    """Fill the stores and measure."""
    async with Lossy.opened(database_url, redis_url) as lossy:
        await lossy.fill(keys, days)
        return await lossy.measure()


def main() -> int:
    """Measure, print, compare with the aims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=40)
    asked = parser.parse_args()
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nz")))
        database = stack.enter_context(embedded.postgres_server(state, database="gateway"))
        redis = stack.enter_context(embedded.redis_server(state))
        migrate(database.url)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            times = runner.run(run(database.url, redis.url, asked.keys, asked.days))
    back = f"back after {times.seconds:.1f} s (aim {WITHIN_S:.0f})"
    sys.stdout.write(f"{asked.keys} keys, {asked.days} days: {back}\n")
    sys.stdout.write(f"longest script {times.longest_script_ms:.1f} ms (aim {SCRIPT_MS:.0f})\n")
    sys.stdout.write(
        f"another tenant's p99: {times.p99_before_ms:.2f} ms before, {times.p99_during_ms:.2f} ms during, "
        f"x{times.p99_during_ms / times.p99_before_ms:.1f} (aim: {ADDED_MS:.0f} ms more)\n"
    )
    is_met = times.seconds < WITHIN_S and times.longest_script_ms < SCRIPT_MS and times.added_ms < ADDED_MS
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())

"""`just bench-years`: what an old ledger costs; exits 1 where it costs more than a new one, or breaks a sum.

python -m tests.bench.bench_years [--rows 10000000] [--days 1500] [--full-days 400]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import asyncpg
from attrs import define, field, frozen

from authz import settings
from authz.accounts.session import Session
from authz.admin.period import Period
from authz.admin.statement import statement
from authz.admin.usage import By, usage
from authz.limiter.limiter import Limiter
from authz.schema import migrate
from authz.stack import embedded
from authz.store import ADMIN_ROLE, Store
from metering.books import Books
from metering.ledger_store import LedgerStore
from metering.retention import Retention
from metering.service import Metering
from metering.surroundings import Surroundings
from tests.metering.writing import NODE, JournalFile

TENANTS, KEYS = 20, 5
BATCHES, PER_BATCH = 300, 20
DROPPED = 3
SLOWER, RSS_MIB = 2.0, 150
"""How much slower than on an empty ledger a batch may be, and the most memory of an export."""

DAY = """
    INSERT INTO ledger (
        request_id, entry, at, node, boot, seq, ip, lookup, tenant_id, key_id, method, path, model, backend,
        stream, outcome, status, day, month, input_tokens, output_tokens, usage_source, duration_ms
    )
    SELECT
        (left(replace(uuid7_floor($1::timestamptz + i * interval '86400 s' / $2)::text, '-', ''), 12)
            || '70008000' || lpad(to_hex(i), 12, '0'))::uuid,
        0, $1, '7c9e6679-7425-40de-944b-e07fc1f90ae7', '7c9e6679-7425-40de-944b-e07fc1f90ae7', i,
        '203.0.113.9', 'nz_3bVSxmba', k.tenant_id, k.id, 'POST', '/v1/chat/completions',
        'model-' || i % 7 || ':latest', 'local', true, 'completed', 200, $1::date,
        date_trunc('month', $1)::date, 78, 64, 'reported', 1210
    FROM generate_series(0, $2 - 1) AS i
    JOIN (SELECT id, tenant_id, row_number() OVER (ORDER BY id) - 1 AS number FROM keys) AS k
        ON k.number = i % $3
"""
SUMS = """
    INSERT INTO usage_daily (day, tenant_id, key_id, model, requests, input_tokens, output_tokens)
    SELECT day, tenant_id, key_id, model, count(*), sum(input_tokens), sum(output_tokens)
    FROM ledger
    WHERE request_id >= uuid7_floor($1::timestamptz)
        AND request_id < uuid7_floor($1::timestamptz + interval '1 day')
    GROUP BY 1, 2, 3, 4
"""
WINDOWS = """
    INSERT INTO budget_windows (scope_id, period, start, tenant_id, used)
    SELECT scope_id, period, start, tenant_id, sum(tokens)
    FROM (
        SELECT s.scope_id, p.period, p.start, u.tenant_id, input_tokens + output_tokens AS tokens
        FROM usage_daily AS u
        CROSS JOIN LATERAL (VALUES (u.tenant_id), (u.key_id)) AS s (scope_id)
        CROSS JOIN LATERAL (
            VALUES ('day', u.day), ('month', date_trunc('month', u.day)::date), ('total', '1970-01-01')
        ) AS p (period, start)
    ) AS w
    GROUP BY 1, 2, 3, 4
"""


class TooExpensive(Exception):
    """A figure missed its target."""


@frozen
class Years:
    """The stores of one run."""

    state: Path
    url: str
    owner: asyncpg.Connection
    now: datetime

    @classmethod
    async def opened(cls, state: Path, name: str, stack: AsyncExitStack) -> Years:
        """A migrated database."""
        url = embedded.postgres_url(state, name)
        migrate(url)
        owner = await asyncpg.connect(url)
        stack.push_async_callback(owner.close)
        return cls(state / name, url, owner, datetime.now(UTC))

    async def fill(self, rows: int, days: int, full_days: int) -> None:
        """Tenants, keys, days, and rows on the last of them, up to yesterday."""
        await self.owner.execute(
            "INSERT INTO tenants (id, name)"
            " SELECT gen_random_uuid(), 'tenant-' || i FROM generate_series(1, $1::int) AS i",
            TENANTS,
        )
        await self.owner.execute(
            "INSERT INTO keys (id, tenant_id, name) SELECT gen_random_uuid(), t.id, 'key-' || i"
            " FROM tenants AS t, generate_series(1, $1::int) AS i",
            KEYS,
        )
        await self.owner.execute(
            "INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash)"
            " SELECT 'nz_' || left(md5(id::text), 8), id, decode(repeat(md5(id::text), 2), 'hex'), 'p', 'h'"
            " FROM keys"
        )
        for ago in range(days, -1, -1):
            await self.owner.execute("SELECT ensure_ledger_partition($1)", self.midnight(ago).date())
        for ago in range(full_days, 0, -1):
            await self.owner.execute(DAY, self.midnight(ago), rows // full_days, TENANTS * KEYS)
            await self.owner.execute(SUMS, self.midnight(ago))
        await self.owner.execute(WINDOWS)
        await self.owner.execute("VACUUM ANALYZE")
        await self.owner.execute("CHECKPOINT")

    def midnight(self, days_ago: int) -> datetime:
        """When a day began."""
        return self.now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days_ago)


async def timed(do: Callable[[], Awaitable[object]], times: int = 5) -> float:
    """The median time that something takes, in ms."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        await do()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


@define
class Settling:
    """One metering on a journal of its own, and how long its batches took, in ms."""

    journal: JournalFile
    metering: Metering
    took_ms: list[float] = field(factory=list)

    @classmethod
    async def begin(cls, years: Years, ledger: LedgerStore, limiter: Limiter) -> Settling:
        """Begin with the requests of some key."""
        (owner,) = await years.owner.fetch("SELECT tenant_id, id FROM keys ORDER BY id LIMIT 1")
        path, begun_ms = years.state / "journal" / "journal.log", int(years.now.timestamp() * 1000)
        journal = JournalFile(path, NODE, owner["tenant_id"], owner["id"], begun_ms)
        journal.start()
        around = Surroundings(path, years.url, "")
        return cls(journal, await Metering.begin(NODE, around, ledger=ledger, limiter=limiter))

    async def batch(self) -> None:
        """Settle some requests."""
        for _ in range(PER_BATCH):
            self.journal.request()
        began = time.perf_counter()
        while await self.metering.step():
            pass
        self.took_ms.append((time.perf_counter() - began) * 1000)

    def percentiles(self) -> dict[str, float]:
        """The median and the 99th percentile, in ms."""
        cuts = statistics.quantiles(self.took_ms, n=100)
        return {"p50_ms": cuts[49], "p99_ms": cuts[98]}


async def settle(new: Years, old: Years, limiter: Limiter) -> float:
    """Settle on both ledgers in turns, so that whatever else the machine does weighs on both; the ratio."""
    async with AsyncExitStack() as stack:
        both = []
        for years in (new, old):
            ledger = await LedgerStore.connect(years.url)
            stack.push_async_callback(ledger.close)
            both.append(await Settling.begin(years, ledger, limiter))
            stack.callback(both[-1].metering.close)
        for _ in range(BATCHES):
            for one in both:
                await one.batch()
    for name, one in zip(("new", "old"), both, strict=True):
        say(f"settle {PER_BATCH} requests, {name}", one.percentiles())
    return both[1].percentiles()["p50_ms"] / both[0].percentiles()["p50_ms"]


async def read(years: Years, session: Session) -> dict[str, float]:
    """What reports take, in ms."""
    noon = years.midnight(35) + timedelta(hours=12)
    found = {}
    for by in By:
        for name, period in (("ever", Period()), ("since a noon", Period(noon))):
            found[f"usage --by {by}, {name}"] = await timed(partial(usage, session, period=period, by=[by]))
    month = (years.midnight(0).replace(day=1) - timedelta(days=1)).date().replace(day=1)
    found["usage statement"] = await timed(partial(statement, session, "tenant-1", month))
    books = await Books.connect(years.url)
    tenant = await years.owner.fetchval("SELECT id FROM tenants WHERE name = 'tenant-1'")
    today = years.now.date()
    found["reckon a tenant"] = await timed(partial(books.reckon, tenant, today - timedelta(days=1), today))
    await books.close()
    return found


def export(environ: Mapping[str, str]) -> dict[str, float]:
    """All rows, by the command; the most memory that it has had."""
    began = time.perf_counter()
    argv = [sys.executable, "-m", "authz", "usage", "export", "--format", "csv"]
    subprocess.run(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"took_s": time.perf_counter() - began, "rss_mib": peak_kib / 1024}


async def retain(years: Years, full_days: int, days: int) -> dict[str, float]:
    """Drop the oldest days, the empty ones first, then full ones."""
    took = {}
    async with Retention.opened(years.url) as retention:
        for name, kept in (("empty days", days - DROPPED), ("full days", full_days - DROPPED)):
            if name == "full days":
                for ago in range(days, full_days, -1):
                    await years.owner.execute(f"DROP TABLE IF EXISTS ledger_{years.midnight(ago):%Y%m%d}")
            began = time.perf_counter()
            dropped = await retention.keep(kept, [datetime.now(UTC)])
            took[f"{name}: ms a day"] = (time.perf_counter() - began) * 1000 / max(1, len(dropped))
    return took


def say(part: str, figures: dict[str, float]) -> None:
    """One line of figures."""
    sys.stdout.write(f"{part}: " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()) + "\n")
    sys.stdout.flush()


async def measure(rows: int, days: int, full_days: int) -> None:
    """Fill a ledger and look at it."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder, ExitStack() as servers:
        state = Path(folder)
        servers.enter_context(embedded.postgres_server(state))
        servers.enter_context(embedded.redis_server(state))
        async with AsyncExitStack() as stack:
            redis_url = f"unix://{state}/run/redis.sock?db=0"
            limiter = await Limiter.connect(redis_url)
            stack.push_async_callback(limiter.close)
            new = await Years.opened(state, "new", stack)
            old = await Years.opened(state, "gateway", stack)
            began = time.perf_counter()
            await new.fill(0, 1, 1)
            await old.fill(rows, days, full_days)
            size = await old.owner.fetchval("SELECT pg_database_size(current_database())")
            say("filled", {"s": time.perf_counter() - began, "gib": size / 2**30, "rows": rows})
            slower = await settle(new, old, limiter)
            environ = {"DATABASE_URL": old.url, "REDIS_URL": redis_url, "GATEWAY_STATE": str(state)}
            commands = Store(old.url, role=ADMIN_ROLE)
            stack.push_async_callback(commands.close)
            session = Session(settings.load(environ), commands, limiter, "bench")
            for name, ms in (await read(old, session)).items():
                say(name, {"ms": ms})
            exported = export(os.environ | environ)
            say("usage export", exported)
            say("retention", await retain(old, full_days, days))
    if slower > SLOWER or exported["rss_mib"] > RSS_MIB:
        raise TooExpensive


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=1500)
    parser.add_argument("--full-days", type=int, default=400)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.rows, arguments.days, arguments.full_days))

"""Metering as a process: killed, stopped, doubled, without Postgres, without Redis."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import asyncpg
import pytest
from attrs import define, field

from authz.limiter import keyspace
from authz.limiter.limiter import Limiter
from metering import service, tail
from metering.surroundings import Surroundings
from tests.metering.gate import Gate
from tests.metering.writing import KEY, NODE, TENANT, JournalFile

TOKENS = 30


async def until(fact: Callable[[], Awaitable[bool]], *, within_s: float = 30.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within_s):
        while not await fact():
            await asyncio.sleep(0.01)


@pytest.fixture
def stuff() -> Iterator[Path]:
    """A folder whose name is short enough for sockets."""
    with TemporaryDirectory(prefix="nz") as folder:
        yield Path(folder)


@define
class World:
    """The journal and both stores, and metering on them through gates."""

    journal: JournalFile
    around: Surroundings
    postgres: Gate
    redis: Gate
    ledger: asyncpg.Connection
    limiter: Limiter
    ids: set[UUID] = field(factory=set)

    @contextlib.asynccontextmanager
    async def running(self, count: int = 1) -> AsyncIterator[None]:
        """So many metering processes run."""
        tasks = [asyncio.create_task(service.run(self.around)) for _ in range(count)]
        try:
            yield
            assert not [task for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def write(self, count: int = 10) -> None:
        """Requests end."""
        self.ids |= {self.journal.request() for _ in range(count)}

    async def is_billed(self) -> bool:
        """Whether the ledger has all that was written."""
        rows: int = await self.ledger.fetchval("SELECT count(*) FROM ledger")
        return rows >= len(self.ids)

    async def is_published(self) -> bool:
        """Whether Redis knows all that was written."""
        return await self.is_billed() and not await self.ledger.fetchval("SELECT count(*) FROM unpublished")

    async def check(self) -> None:
        """Each request is billed once, and windows and Redis say the same."""
        rows = await self.ledger.fetch("SELECT request_id FROM ledger")
        assert sorted(self.ids) == sorted(row["request_id"] for row in rows)
        used = await self.ledger.fetchval(
            "SELECT used FROM budget_windows WHERE scope_id = $1 AND period = 'total'", KEY
        )
        cached = await self.limiter._redis.of(TENANT).send("HGET", keyspace.tenant(TENANT), f"u:{KEY}:t")
        assert (len(self.ids) * TOKENS, len(self.ids) * TOKENS) == (used, int(cached))


@pytest.fixture
async def limiter(limiter: Limiter) -> Limiter:
    """A Limiter on Redis's own clock: a process can be given no other."""
    limiter.clock_us = 0
    return limiter


@pytest.fixture
def journal(tmp_path: Path) -> JournalFile:
    """A journal whose requests begin now, because the processes that read it know no other time."""
    written = JournalFile(tmp_path / "journal" / "journal.log", begun_ms=time.time_ns() // 1_000_000)
    written.start()
    return written


@pytest.fixture
async def world(
    stores: Path, stuff: Path, database: str, limiter: Limiter, journal: JournalFile
) -> AsyncIterator[World]:
    """Metering's world, nothing running yet."""
    postgres = Gate(stores / "run" / ".s.PGSQL.5432", stuff / ".s.PGSQL.5432")
    redis = Gate(stores / "run" / "redis.sock", stuff / "redis.sock")
    name = database.rpartition("?")[0]
    around = Surroundings(
        journal.path, f"{name}?host={stuff}", f"unix://{redis.path}?db=0", jitter=lambda: -0.4
    )
    await limiter.create(TENANT, 1)
    ledger = await asyncpg.connect(database)
    async with await postgres.serve(), await redis.serve():
        yield World(journal, around, postgres, redis, ledger, limiter)
        postgres.close()
        redis.close()
    await ledger.close()


async def test_it_follows_what_is_written(world: World) -> None:
    """Started before or after the lines, it bills them."""
    world.write()
    async with world.running():
        await until(world.is_published)
        world.write()
        await until(world.is_published)
    await world.check()


async def test_lines_gather(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written one by one after all before it is committed is committed together."""
    monkeypatch.setattr(service, "GATHER_S", 1.0)
    async with world.running():
        world.write(1)
        await until(world.is_billed)
        for _ in range(5):
            world.write(1)
            for _ in range(20):  # more time than a poll of the journal
                assert not await world.is_billed()
        await until(world.is_published)
    assert 2 == await world.ledger.fetchval("SELECT count(DISTINCT xmin::text) FROM ledger")
    await world.check()


async def test_what_is_behind_waits_for_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that were there before are read to their end without a pause."""
    monkeypatch.setattr(service, "GATHER_S", 600.0)
    world.write(tail.CHUNK_LINES)  # two lines each, so two chunks
    async with world.running():
        await until(world.is_published)
    await world.check()


async def test_it_waits_for_a_caddy_that_never_started(world: World, tmp_path: Path) -> None:
    """Without a node beside the journal there is nothing to bill yet."""
    world.journal.path.with_name("node").unlink()
    world.write()
    async with world.running():
        assert not await world.is_billed()
        world.journal.path.with_name("node").write_text(str(NODE))
        await until(world.is_published)
    await world.check()


async def test_postgres_away_and_back(world: World) -> None:
    """While Postgres is away it keeps its place; when it is back nothing is missing and nothing double."""
    async with world.running():
        world.write()
        await until(world.is_published)
        for _ in range(3):
            world.postgres.close()
            world.write()
            world.postgres.is_open = True
            await until(world.is_published)
    await world.check()


@pytest.mark.parametrize(
    "command", [b"COMMIT", b"BEGIN", b"journal_files", b"budget_windows", b"DELETE FROM unpublished"]
)
async def test_an_answer_of_postgres_is_lost(world: World, command: bytes) -> None:
    """Whether a transaction was committed is Postgres's to say, not the connection's."""
    async with world.running():
        world.write()
        await until(world.is_published)
        world.postgres.swallow_answer_to = command
        world.write()
        await until(world.is_published)
    await world.check()


async def test_redis_away_and_back(world: World) -> None:
    """Without Redis requests are billed; when it is back it learns of all of them."""
    world.redis.close()
    async with world.running():
        world.write()
        await until(world.is_billed)
        assert not await world.is_published()
        world.redis.is_open = True
        await until(world.is_published)
        world.redis.close()
        world.write()
        await until(world.is_billed)
        world.redis.is_open = True
        await until(world.is_published)
    await world.check()


async def test_two_processes_on_one_journal(world: World) -> None:
    """Two are as good as one: the mark lets only one commit."""
    async with world.running(2):
        for _ in range(50):
            world.write(3)
            await asyncio.sleep(0)
        world.journal.rotate()
        world.write(100)
        await until(world.is_published)
    await world.check()


async def test_the_other_takes_over(world: World) -> None:
    """When one of two ends, the other goes on."""
    async with world.running():
        async with world.running():
            world.write()
            await until(world.is_published)
        world.write()
        await until(world.is_published)
    await world.check()


@contextlib.asynccontextmanager
async def process(world: World, state: Path, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m metering` on this world."""
    found = (
        os.environ
        | {
            "GATEWAY_STATE": str(state),
            "GATEWAY_JOURNAL": str(world.journal.path),
            "DATABASE_URL": world.around.database_url,
            "REDIS_URL": world.around.redis_url,
        }
        | environ
    )
    with (state / "log").open("ab") as log:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "metering", env=found, stderr=log
        )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


async def test_kill_9_at_any_moment(world: World, stuff: Path) -> None:
    """Killed again and again while requests end, it bills each of them once."""
    for _ in range(4):
        async with process(world, stuff) as started:
            before = await world.ledger.fetchval("SELECT count(*) FROM ledger")
            world.write(200)

            async def has_begun(before: int = before) -> bool:
                world.write(5)
                return bool(await world.ledger.fetchval("SELECT count(*) FROM ledger") > before)

            await until(has_begun)
            started.kill()
    async with process(world, stuff):
        await until(world.is_published)
    await world.check()


async def test_sigterm_ends_it_at_once(world: World, stuff: Path) -> None:
    """It stops when asked to, with exit code 0 and a clean log, also while Postgres is away."""
    async with process(world, stuff) as started:
        world.write()
        await until(world.is_published)
        world.postgres.close()
        started.send_signal(signal.SIGTERM)
        assert 0 == await asyncio.wait_for(started.wait(), 5)
    assert "Traceback" not in (stuff / "log").read_text()


async def test_a_wrong_setting_is_one_sentence(world: World, stuff: Path) -> None:
    """A setting it can't use ends it with exit code 2 and says what to do."""
    async with process(world, stuff, DATABASE_URL="", REDIS_URL="") as started:
        assert 2 == await asyncio.wait_for(started.wait(), 10)
    assert (stuff / "log").read_text().startswith("error: ")

"""Whatever happens to files, processes and stores, in any order: each request is billed once (B2, B3)."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from authz.limiter import keyspace
from authz.limiter.limiter import Limiter
from authz.store import METERING_ROLE
from authz.store import Store as Versions
from metering.files import rotated
from tests.metering.process import Process
from tests.metering.writing import JournalFile

STEPS = ["mark_moved", "ledger_written", "windows_raised", "committed", "settled", "published"]
TOKENS = 30
_examples = itertools.count(1)


class Machine(RuleBasedStateMachine):
    """Caddy, its files, two metering processes and the stores."""

    url: str
    redis_url: str
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.written: set[UUID] = set()  # complete lines
        self.copies = 0
        self.flushed = False

    def do(self, work: Any) -> Any:
        """Run something async."""
        return self.runner.run(work)

    def tick(self) -> float:
        """A clock by which every step is a beat."""
        self.now += 2
        return self.now

    @initialize()
    def start(self) -> None:
        """A Caddy starts; two metering processes may."""
        example = next(_examples)  # one database for all: nothing of two examples may be the same
        self.folder = Path(tempfile.mkdtemp(prefix="nz-machine-"))
        node, tenant, key = (UUID(int=example << 8 | part, version=4) for part in range(3))
        self.journal = JournalFile(self.folder / "journal" / "journal.log", node, tenant, key)
        self.journal.ids = example << 16
        self.journal.start()
        self.limiter = self.do(Limiter.connect(self.redis_url))
        self.limiter.clock_us = self.journal.begun_ms * 1000
        self.do(self.limiter.create(tenant, 1))
        self.versions = Versions(self.url, role=METERING_ROLE, connections=1)
        self.processes = [
            Process(self.journal, self.url, self.versions, self.limiter, self.tick) for _ in range(2)
        ]

    # Caddy
    def put(self, data: bytes) -> None:
        """A write by Caddy; after a torn one it hangs on the same line."""
        self.journal.append(data)

    @rule(count=st.integers(1, 5), at_once=st.booleans())
    def write(self, count: int, at_once: bool) -> None:
        """Requests begin and end."""
        ids = [self.journal.new_id() for _ in range(count)]
        opened, ended = [self.journal.opened(i) for i in ids], [self.journal.ended(i) for i in ids]
        if at_once:
            self.put(b"".join(opened + ended))
        else:
            for line in (*opened, *ended):
                self.put(line)
        self.written |= set(ids)

    @rule(cut=st.floats(0.01, 0.99))
    def write_torn(self, cut: float) -> None:
        """A write fails half way."""
        request_id = self.journal.new_id()
        line = self.journal.ended(request_id)
        self.put(line[: max(1, int(len(line) * cut) - 1)])

    @rule(
        junk=st.sampled_from(
            [b"\n", b"garbage\n", b"\0" * 100, b"\0\n", b"{}\n", b"[" * 5000 + b"\n", b"\xff\n"]
        )
    )
    def write_garbage(self, junk: bytes) -> None:
        """Something writes what is no line."""
        self.put(junk)

    @rule()
    def restart_caddy(self) -> None:
        """A new boot; nothing of the earlier one is open, so nothing is orphaned."""
        self.put(b"\n")
        self.journal.start()

    @rule()
    def rotate(self) -> None:
        """Caddy rolls the file."""
        self.journal.rotate()

    # the files
    @rule()
    def compress_oldest(self) -> None:
        """Caddy compresses a rotated file."""
        plain = [path for path in rotated(self.journal.path) if path.suffix == ".log"]
        if plain:
            self.journal.compress(plain[0])

    @rule()
    def copy_packed(self) -> None:
        """A rotated file and its compressed copy exist side by side."""
        plain = [path for path in rotated(self.journal.path) if path.suffix == ".log"]
        if plain:
            kept = plain[-1].read_bytes()
            self.journal.compress(plain[-1])
            plain[-1].write_bytes(kept)

    @rule(part=st.floats(0, 1))
    def copy(self, part: float) -> None:
        """Copy a part of the journal to where a rotated file would be."""
        self.copies += 1
        data = self.journal.path.read_bytes()
        name = f"journal-2019-01-01T00-00-00.{self.copies:03}-size.log"
        self.journal.path.with_name(name).write_bytes(data[: int(len(data) * part)])

    @rule()
    def delete_what_is_read(self) -> None:
        """Old files are removed once they are read."""
        if self.settle_down():
            for path in rotated(self.journal.path):
                path.unlink()

    @rule(part=st.floats(0, 1))
    def truncate(self, part: float) -> None:
        """The file is cut in place, after it was read; what was in it may be read again."""
        if self.settle_down():
            os.truncate(self.journal.path, int(self.journal.path.stat().st_size * part))

    # metering
    @rule(which=st.integers(0, 1), steps=st.integers(1, 3))
    def read(self, which: int, steps: int) -> None:
        """One of two processes goes on."""
        for _ in range(steps):
            self.do(self.processes[which].step())

    @rule(
        which=st.integers(0, 1), step=st.sampled_from(STEPS), kind=st.sampled_from(["kill", "lose Postgres"])
    )
    def fail(self, which: int, step: str, kind: str) -> None:
        """The next time a process gets to a step it dies there, or loses Postgres."""
        self.processes[which].fault = (step, kind)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        """A process is started anew."""
        self.do(self.processes[which].end())

    @rule()
    def flush_redis(self) -> None:
        """Redis forgets everything."""
        self.do(self.flush())
        self.flushed = True

    async def flush(self) -> None:
        """Empty Redis."""
        async with Redis.from_url(self.redis_url) as redis:
            await redis.flushall()

    def settle_down(self) -> bool:
        """Let one process read everything; True when it has."""
        for process in self.processes:
            process.fault = None
        self.do(self.processes[1].end())
        for _ in range(200):
            if not self.do(self.processes[0].step()) and not self.do(self.processes[0].step()):
                return True
        raise AssertionError("metering does not come to rest")

    def teardown(self) -> None:
        """At rest the bill is exactly what was written."""
        if not hasattr(self, "processes"):
            return
        try:
            self.settle_down()
            self.do(self.check())
        finally:
            for process in self.processes:
                self.do(process.end())
            self.do(self.limiter.close())
            self.do(self.versions.close())
            shutil.rmtree(self.folder)

    async def check(self) -> None:
        """Ledger, windows and Redis against what was written."""
        database = await asyncpg.connect(self.url)
        node, tenant = self.journal.node, self.journal.tenant
        rows = await database.fetch(
            "SELECT request_id, entry, input_tokens + output_tokens AS tokens FROM ledger WHERE node = $1",
            node,
        )
        windows = await database.fetch(
            "SELECT used, version, scope_id, period, start FROM budget_windows WHERE tenant_id = $1", tenant
        )
        left = await database.fetchval("SELECT count(*) FROM unpublished WHERE tenant_id = $1", tenant)
        still_open = await database.fetchval("SELECT count(*) FROM open_requests WHERE node = $1", node)
        await database.close()
        assert {row["request_id"]: TOKENS for row in rows} == dict.fromkeys(self.written, TOKENS)
        assert len(self.written) == len(rows)
        assert [len(self.written) * TOKENS] * 6 == [row["used"] for row in windows] or not self.written
        assert (0, 0) == (left, still_open)
        if not self.flushed and self.written:
            async with Redis.from_url(self.redis_url) as redis:
                used = await redis.hget(keyspace.tenant(tenant), f"u:{self.journal.key}:t")
            assert len(self.written) * TOKENS == int(used or 0)


@pytest.mark.timeout(300)
def test_each_request_is_billed_once_whatever_happens(database: str, redis_url: str) -> None:
    """B2, B3: ledger = complete lines, windows = ledger, Redis = windows, nothing open or unpublished."""
    with asyncio.Runner() as runner:
        Machine.url, Machine.redis_url, Machine.runner = database, redis_url, runner
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=30,
                stateful_step_count=30,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )

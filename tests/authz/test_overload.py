"""More decisions than a process can work on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from attrs import evolve

from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.app import COLLECTED_AT
from authz.decision.refusals import Refusal
from authz.decision.verify import Deadline, _closed
from authz.settings import Settings
from authz.types import Limits
from tests.authz.asking import NODE, Guard, reason

WITHIN_S = 20.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Of a process that decides one request at a time, and lets it wait for a slot."""
    return evolve(settings, decisions=1, queue_ms=1000)


async def test_too_many_decisions_are_refused_early(guard: Guard, session: Session) -> None:
    """A request that finds a process at its bound is refused at once; the one before it is decided."""
    await session.limiter.vouch(NODE, lag_ms=0)
    await set_tenant_limits(session, "acme", limits=lambda _: Limits(concurrency=1))
    assert 204 == (await guard.ask()).status_code
    waiting = asyncio.create_task(guard.ask())
    async with asyncio.timeout(WITHIN_S):
        while (answer := await guard.ask("/nowhere")).status_code != 503:
            assert not waiting.done(), "nothing was refused while it waited"
    assert "overloaded" == reason(answer)
    assert "1" == answer.headers["retry-after"]
    assert "concurrency" == reason(await waiting)
    assert "overloaded" != reason(await guard.ask("/nowhere"))


async def test_what_takes_too_long_is_refused(guard: Guard, owner_of_tables: asyncpg.Connection) -> None:
    """A decision that Postgres holds up is a refusal while Caddy still waits for it; the next one is not."""
    async with owner_of_tables.transaction():
        await owner_of_tables.execute("LOCK TABLE secrets IN ACCESS EXCLUSIVE MODE")
        assert "overloaded" == reason(await guard.ask())
    assert 204 == (await guard.ask()).status_code


def test_circles_are_looked_for_seldom(tmp_path: Path) -> None:
    """A process looks for circles after many decisions, and never through what was loaded."""
    pepper = tmp_path / "pepper"
    pepper.write_text("ab" * 32)
    pepper.chmod(0o400)
    program = "import gc, authz.app as app; app.create(); print(gc.get_threshold()[0], gc.get_freeze_count())"
    environ = {"GATEWAY_STATE": str(tmp_path), "DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h"}
    found = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, check=True)
    threshold, frozen = map(int, found.stdout.split())
    assert COLLECTED_AT == threshold
    assert frozen > COLLECTED_AT


async def test_what_is_cancelled_has_no_answer() -> None:
    """Only what is late is refused: a process that ends cancels what it decides."""
    deciding = asyncio.create_task(_closed(asyncio.Event().wait(), Deadline()))
    await asyncio.sleep(0)
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding


async def test_each_decision_has_the_same_time() -> None:
    """However many decisions run, each that is late ends at its own time, and no other one."""
    deadline, loop = Deadline(within_s=0.3), asyncio.get_running_loop()

    async def late(begins_after_s: float) -> float:
        await asyncio.sleep(begins_after_s)
        began_s = loop.time()
        assert isinstance(await _closed(asyncio.Event().wait(), deadline), Refusal)
        return loop.time() - began_s

    async def in_time(begins_after_s: float) -> str | Refusal:
        await asyncio.sleep(begins_after_s)
        return await _closed(asyncio.sleep(0, "decided"), deadline)

    begin = [step / 40 for step in range(20)]
    decided = asyncio.gather(*map(in_time, begin))
    took_s = await asyncio.gather(*map(late, begin))
    assert {"decided"} == set(await decided)
    assert all(0.3 <= each < WITHIN_S for each in (*took_s, await late(0.0)))


async def test_what_is_late_and_cancelled_has_no_answer() -> None:
    """A process that ends while a decision is late has no answer to it."""
    deadline = Deadline(within_s=0.05)
    is_stopping = asyncio.Event()

    async def stop_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            is_stopping.set()
            await asyncio.Event().wait()

    deciding = asyncio.create_task(_closed(stop_slowly(), deadline))
    await is_stopping.wait()
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding

"""More decisions than a process can work on."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from attrs import evolve

from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.decision.verify import _closed
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


async def test_what_is_cancelled_has_no_answer() -> None:
    """Only what is late is refused: a process that ends cancels what it decides."""
    deciding = asyncio.create_task(_closed(asyncio.Event().wait()))
    await asyncio.sleep(0)
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding

"""More decisions than a process can work on."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
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

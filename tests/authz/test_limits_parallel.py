"""Two authz processes on one Redis: however many ask at once, no ceiling is passed, and none is feared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from authz.limiter import keyspace
from authz.limiter.admission import Admitted, LimitReached
from authz.limiter.limiter import Limiter
from authz.types import Limits
from tests.authz.limiting import Desk
from tests.redis_cluster import client, on_both

pytestmark = on_both

MINUTE_US = 60_000_000


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """A tenant whose requests come through two processes, by Redis's own clock."""
    other = await Limiter.connect(redis_url)
    async with client(redis_url) as redis:
        found = Desk(limiter, redis, others=(other,), now=datetime.now(UTC))
        limiter.clock_us = other.clock_us = 0
        yield found
    await other.close()


async def storm(desk: Desk, count: int, *, wanted: int = 64) -> list[UUID]:
    """Ask for this many at once, through both processes in turn; returns what was admitted."""
    asks = [desk.ask(wanted=wanted, key=desk.keys[number // 2 % 2]) for number in range(count)]
    processes = (desk.limiter, *desk.others)
    tries = (desk.admit(ask, limiter=processes[number % 2]) for number, ask in enumerate(asks))
    decisions = await asyncio.gather(*tries)
    return [ask.request_id for ask, got in zip(asks, decisions, strict=True) if isinstance(got, Admitted)]


async def test_budget_is_not_passed(desk: Desk) -> None:
    """L3: 64 at once never hold more than the budget, and all of it is used once answers are short."""
    await desk.open(Limits(tokens_total=1000))
    spent = 0
    while admitted := await storm(desk, 8):
        rows = [desk.admitted[id_] for id_ in admitted]
        assert 1000 >= spent + sum(row.held_input + row.held_output for row in rows)
        await desk.settle({row.request_id: row.held_input + min(3, row.held_output) for row in rows})
        spent = sum(desk.ledger.values())
    assert 990 <= spent <= 1000
    decision = await desk.admit()
    assert isinstance(decision, LimitReached)
    assert "total" == decision.limit


async def test_uncapped_requests_run_side_by_side(desk: Desk) -> None:
    """L3: five clients without a cap, each with a long prompt, share a budget through two processes."""
    await desk.open(Limits(tokens_per_day=50_000))
    asks = [
        replace(desk.ask(bound_in=3_000, wanted=32_768, key=key), share=8, least_share=1_024)
        for key in (*desk.keys, *desk.keys, desk.key)
    ]
    processes = (desk.limiter, *desk.others)
    tries = (desk.admit(ask, limiter=processes[number % 2]) for number, ask in enumerate(asks))
    decisions = await asyncio.gather(*tries)
    assert [6_250] * 5 == [got.output for got in decisions if isinstance(got, Admitted)]


async def test_64_at_once(desk: Desk) -> None:
    """L3: of 64 requests of 74 tokens, 13 fit into 1,000; the rest is refused as something that may wait."""
    await desk.open(Limits(tokens_per_day=1000), Limits(tokens_total=1000), Limits(tokens_total=1000))
    assert 13 == len(await storm(desk, 64))


async def test_slots_are_not_passed(desk: Desk) -> None:
    """L4: 64 at once get five slots, 64 more none, and as many as are done get one again."""
    await desk.open(Limits(concurrency=5))
    admitted = await storm(desk, 64)
    assert 5 == len(admitted)
    assert [] == await storm(desk, 64)
    done = [(id_, desk.tenant, desk.admitted[id_].key) for id_ in admitted[:2]]
    await desk.limiter.free(done)
    assert 2 == len(await storm(desk, 64))


async def test_rate_is_not_passed(desk: Desk) -> None:
    """RPM 10, 64 at once through two processes: ten."""
    await desk.open(Limits(requests_per_minute=10))
    assert 10 == len(await storm(desk, 64))


async def test_smaller_of_two_counts(desk: Desk) -> None:
    """Tenant and key limits hold both: a key gets its own, all keys together what the tenant has."""
    await desk.open(Limits(concurrency=5), Limits(concurrency=2), Limits(concurrency=4))
    keys = [desk.admitted[id_].key for id_ in await storm(desk, 64)]
    assert 5 == len(keys)
    assert 2 >= keys.count(desk.keys[0])
    assert 4 >= keys.count(desk.keys[1])


async def test_twins_are_one(desk: Desk) -> None:
    """L2: the same request, asked for through both processes at once, is admitted and counted once."""
    await desk.open(Limits(requests_per_minute=1, concurrency=1))
    ask = desk.ask()
    decisions = await asyncio.gather(
        *(desk.admit(ask, limiter=which) for which in (desk.limiter, *desk.others))
    )
    assert [(10, 10)] * 2 == [(got.input, got.output) for got in decisions if isinstance(got, Admitted)]
    assert 20 == await desk.field("h:t:t")


async def test_cancelled_admission_leaks_nothing(desk: Desk) -> None:
    """L4: whoever leaves before the answer may have been admitted: its record settles it, and all is free."""
    await desk.open(Limits(concurrency=3, tokens_total=500))
    asks = [desk.ask() for _ in range(20)]
    tasks = [asyncio.create_task(desk.admit(ask)) for ask in asks]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await desk.limiter.now()
    assert 3 == await desk.redis.zcard(keyspace.slots(desk.tenant, desk.limiter.run(desk.tenant)))
    for row in await desk.limiter.overdue(desk.tenant, desk.now + timedelta(days=1)):
        desk.admitted[row.request_id] = row
    await desk.settle(dict.fromkeys(desk.admitted, 0))
    assert 3 == len(await storm(desk, 64))

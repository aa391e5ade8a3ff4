"""Requests and tokens per minute: a burst of one limit, exact in the long run, debt carried."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from authz.limiter.admission import MINUTE_US, Admitted, LimitReached
from authz.limiter.limiter import READS_PER_MINUTE, Limiter
from authz.types import Limits, Windows
from tests.authz.limiting import NOON, Desk, refusal

MINUTE = timedelta(minutes=1)


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """A tenant with two keys."""
    async with Redis.from_url(redis_url) as redis:
        yield Desk(limiter, redis)


@pytest.mark.parametrize("limit", [1, 7, 10, 45, 61, 997, 7741])
async def test_burst_is_exactly_the_limit(desk: Desk, limit: int) -> None:
    """As many requests as the limit pass at once, and not one more, whatever a minute divides into."""
    await desk.open(Limits(requests_per_minute=limit))
    taken = [await desk.admit(desk.ask(bound_in=0, wanted=0)) for _ in range(min(limit, 100))]
    assert all(isinstance(decision, Admitted) for decision in taken)
    if limit <= 100:
        assert ("requests", "tenant") == refusal(await desk.admit())


async def test_reads_are_a_rate_of_their_own(desk: Desk) -> None:
    """A key has 120 reads at once, then one each half second, also after its clock has stepped back."""
    read = partial(desk.limiter.read, desk.tenant, desk.key)
    assert {0} == {await read() for _ in range(READS_PER_MINUTE)}
    assert 500_000 == await read() == await read(), "a refusal takes nothing"
    desk.pass_time(timedelta(milliseconds=499))
    assert 1_000 == await read()
    desk.pass_time(timedelta(milliseconds=1))
    assert 0 == await read()
    assert 0 == await desk.limiter.read(desk.tenant, desk.keys[1])
    desk.pass_time(timedelta(hours=-1))
    assert 0 == await read()


async def test_long_run_is_exactly_the_limit(desk: Desk) -> None:
    """A client that always waits as asked gets one burst and then the limit a minute, to the microsecond."""
    await desk.open(Limits(requests_per_minute=7))
    admitted = 0
    while admitted < 7 + 7 * 20:
        decision = await desk.admit()
        if isinstance(decision, LimitReached):
            desk.pass_time(timedelta(microseconds=decision.wait_us))
        else:
            admitted += 1
    assert timedelta(microseconds=140) > desk.now - (NOON + 20 * MINUTE) >= timedelta()


@pytest.mark.parametrize("limits", [(7, 500), (500, 7), (7, 6)])
async def test_wait_suffices(desk: Desk, limits: tuple[int, int]) -> None:
    """L5: with several rates violated the longest wait is returned: after it, alone, one is admitted."""
    tenant, key = (Limits(requests_per_minute=limit, tokens_per_minute=100 * limit) for limit in limits)
    await desk.open(tenant, key)
    while isinstance(decision := await desk.admit(desk.ask(wanted=99)), Admitted):
        pass
    assert isinstance(decision, LimitReached)
    desk.pass_time(timedelta(microseconds=decision.wait_us - 1000))
    assert isinstance(await desk.admit(desk.ask(wanted=99)), LimitReached)
    desk.pass_time(timedelta(microseconds=1000))
    assert isinstance(await desk.admit(desk.ask(wanted=99)), Admitted)


@pytest.mark.parametrize("scope", ["tenant", "key"])
async def test_longest_wait_is_named(desk: Desk, scope: str) -> None:
    """L5: of the rates that refuse, the one that refuses longest is named, whoever's it is."""
    long, short = Limits(tokens_per_minute=100), Limits(requests_per_minute=1)
    await desk.open(*((long, short) if scope == "tenant" else (short, long)))
    await desk.settle({await desk.reserve(): 500})
    decision = await desk.admit()
    assert ("tokens", scope) == refusal(decision)
    assert 252_000_000 == getattr(decision, "wait_us", None)


@pytest.mark.parametrize("limits", [Limits(requests_per_minute=1), Limits(tokens_per_minute=20)])
@pytest.mark.parametrize(("scope", "back_s", "wait_s"), [("tenant", 50, 60 + 50), ("key", 81, 60 + 20)])
async def test_each_scope_waits_for_its_own_clock(
    desk: Desk, limits: Limits, scope: str, back_s: int, wait_s: int
) -> None:
    """L5: a clock that stepped back is further behind the tenant, whom another key has used since."""
    of_key, loose = limits if scope == "key" else Limits(), Limits(requests_per_minute=1000)
    await desk.open(limits if scope == "tenant" else loose, of_key, loose)
    await desk.reserve()
    desk.pass_time(timedelta(seconds=61))
    await desk.reserve(key=desk.keys[1])
    desk.pass_time(timedelta(seconds=-back_s))
    decision = await desk.admit()
    assert scope == refusal(decision)[1]
    assert wait_s * 1_000_000 == getattr(decision, "wait_us", None)


async def test_estimate_above_the_limit_is_not_locked_out(desk: Desk) -> None:
    """A single request dearer than a minute's tokens passes when the bucket is full, and owes the rest."""
    await desk.open(Limits(tokens_per_minute=60))
    running = await desk.reserve(wanted=590)
    await desk.settle({running: 600})
    decision = await desk.admit(desk.ask(bound_in=1, wanted=0))
    assert isinstance(decision, LimitReached)
    assert (540 + 1, 600) == (decision.wait_us // 1_000_000, decision.used)


async def test_unused_estimate_comes_back(desk: Desk) -> None:
    """The unused part of an estimate is there for the next request at once."""
    await desk.open(Limits(tokens_per_minute=100))
    await desk.settle({await desk.reserve(wanted=90): 30})
    decision = await desk.admit(desk.ask(wanted=60))
    assert isinstance(decision, Admitted)
    assert decision.tokens is not None
    assert 0 == decision.tokens.left


async def test_late_refund_gives_nothing_twice(desk: Desk) -> None:
    """A refund long after the admission can't give back what the bucket has regained meanwhile."""
    await desk.open(Limits(tokens_per_minute=100))
    first = await desk.reserve(wanted=90)
    desk.pass_time(MINUTE)
    await desk.reserve(wanted=90)
    await desk.settle({first: 0})
    assert ("tokens", "tenant") == refusal(await desk.admit(desk.ask(bound_in=1, wanted=0)))


async def test_correction_survives_a_change_of_limits(desk: Desk) -> None:
    """A reservation made under old limits is settled, and corrected, under new ones or none."""
    await desk.open(Limits(tokens_per_minute=100, requests_per_minute=10, tokens_total=500))
    running = await desk.reserve(wanted=90)
    desk.limits[desk.tenant] = Limits()
    await desk.reserve()
    desk.limits[desk.tenant] = Limits(tokens_per_minute=10, tokens_total=1000)
    await desk.settle({running: 50})
    standing = await desk.limiter.standing(desk.tenant, (), Windows("2026-11-25", "2026-11"))
    assert standing is not None
    assert (50, 20, 1) == (standing[0].total.used, standing[0].total.held, standing[0].running)
    assert 30_000_000 == standing[0].tokens_full_in_us


async def test_wait_suffices_behind_a_clock_that_stepped_back(desk: Desk) -> None:
    """L5: a bucket stands still until the clock has caught up, and the wait says so."""
    await desk.open(Limits(requests_per_minute=1))
    await desk.reserve()
    desk.pass_time(-timedelta(seconds=20))
    decision = await desk.admit()
    assert isinstance(decision, LimitReached)
    assert 80_000_000 == decision.wait_us
    desk.pass_time(timedelta(microseconds=decision.wait_us))
    assert isinstance(await desk.admit(), Admitted)


async def test_clock_that_steps_back_locks_no_key_out(desk: Desk) -> None:
    """Buckets wait at most a minute for a clock that stepped back, and no other key suffers for it."""
    limits = Limits(requests_per_minute=1)
    await desk.open(Limits(), limits, limits)
    for key in desk.keys:
        await desk.reserve(key=key)
    desk.pass_time(-timedelta(hours=2))
    for key in desk.keys:
        assert isinstance(await desk.admit(desk.ask(key=key)), Admitted)


STEPS = st.lists(
    st.tuples(st.integers(0, 90_000_000), st.integers(1, 150), st.integers(0, 200), st.booleans()),
    max_size=12,
)


@settings(max_examples=40, derandomize=True)
@given(limit=st.integers(1, 120), steps=STEPS)
def test_refund_never_undercharges(
    stores: object, limit: int, steps: list[tuple[int, int, int, bool]]
) -> None:
    """A bucket that was corrected is never ahead of one that knew at admission what would be used."""
    asyncio.run(_corrected(f"unix://{stores}/run/redis.sock?db=0", limit, steps))


async def _corrected(url: str, limit: int, steps: list[tuple[int, int, int, bool]]) -> None:
    limiter = await Limiter.connect(url)
    async with Redis.from_url(url) as redis:
        desk, truth_us, at = Desk(limiter, redis), 0.0, NOON
        await desk.open(Limits(tokens_per_minute=limit))
        waiting: dict[UUID, int] = {}
        for passed_us, estimate, used, is_settled in steps:
            desk.pass_time(timedelta(microseconds=passed_us))
            ask = desk.ask(bound_in=estimate, wanted=0)
            if isinstance(await desk.admit(ask), Admitted):
                passed = (desk.now - at) // timedelta(microseconds=1)
                truth_us, at = max(0.0, truth_us - passed) + used * MINUTE_US / limit, desk.now
                waiting[ask.request_id] = used
            if is_settled:
                await desk.settle(waiting)
                waiting = {}
        await desk.settle(waiting)
        standing = await limiter.standing(desk.tenant, (), Windows("2026-11-25", "2026-11"))
    await limiter.close()
    assert standing is not None
    passed = (desk.now - at) // timedelta(microseconds=1)
    assert truth_us - passed <= standing[0].tokens_full_in_us + 2


async def test_clock_of_tests_is_off_by_default(limiter: Limiter) -> None:
    """Nothing but a test ever sets the scripts' clock."""
    assert 0 == limiter.clock_us
    assert timedelta(seconds=5) > abs(await limiter.now() - await limiter.now())

"""The decisions of the scripts, one rule at a time; known bugs of limiters elsewhere each have their test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from authz.limiter import wire
from authz.limiter.admission import Admitted, LimitReached, NotDecided
from authz.limiter.limiter import Limiter
from authz.types import Limits
from tests.authz.limiting import Desk, refusal
from tests.redis_cluster import client, on_both

pytestmark = on_both

SECOND = timedelta(seconds=1)


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """A tenant with two keys."""
    async with client(redis_url) as redis:
        yield Desk(limiter, redis)


REFUSING = {
    "requests": Limits(requests_per_minute=1),
    "tokens": Limits(tokens_per_minute=20),
    "concurrency": Limits(concurrency=1),
    "held_day": Limits(tokens_per_day=30),
    "held_month": Limits(tokens_per_month=30),
    "held_total": Limits(tokens_total=30),
}


@pytest.mark.parametrize("scope", ["tenant", "key"])
@pytest.mark.parametrize("limit", REFUSING)
async def test_refusal_writes_nothing(desk: Desk, limit: str, scope: str) -> None:
    """L1: whatever refuses, no key of Redis changes by a byte: no rate is burnt, no slot taken."""
    limits = (REFUSING[limit],) if scope == "tenant" else (Limits(), REFUSING[limit])
    await desk.open(*limits)
    await desk.reserve()
    before = await desk.content()
    assert (limit, scope) == refusal(await desk.admit())
    assert before == await desk.content()


@pytest.mark.parametrize("reason", ["lost", "stale", "stale tenant", "closed", "late", "calendar"])
async def test_unfit_writes_nothing(desk: Desk, reason: str) -> None:
    """L1: a request that can't be judged changes no key either."""
    await desk.open()
    ask = desk.ask(age=timedelta(seconds=61)) if reason == "late" else desk.ask()
    if reason == "closed":
        await desk.admit(ask)
        await desk.settle({ask.request_id: 3})
    elif reason == "stale":
        await desk.limiter.raise_versions(desk.tenant, {desk.key: 2})
    elif reason == "stale tenant":
        await desk.limiter.raise_versions(desk.tenant, {None: 2})
    elif reason == "calendar":
        ask = replace(ask, valid_until_us=wire.us(desk.now))
    elif reason == "lost":
        await desk.redis.hset(f"nz:{{{desk.tenant}}}", "epoch", "another run")
    before = await desk.content()
    assert NotDecided(reason.split(maxsplit=1)[0], desk.now) == await desk.admit(ask)
    assert before == await desk.content()


async def test_admit_twice_is_once(desk: Desk) -> None:
    """L2: a repeated admit gets the stored answer and changes nothing, whatever it asks for now."""
    await desk.open(Limits(requests_per_minute=5, tokens_total=100))
    ask = desk.ask()
    first, before = await desk.admit(ask), await desk.content()
    assert first == await desk.admit(replace(ask, bound_in=90, wanted=900))
    assert before == await desk.content()


async def test_replay_is_no_second_try(desk: Desk) -> None:
    """L2: a repeated admit is answered when the limit it took itself is full by now."""
    await desk.open(Limits(concurrency=1, requests_per_minute=1))
    ask = desk.ask()
    assert isinstance(await desk.admit(ask), Admitted)
    assert isinstance(await desk.admit(ask), Admitted)


async def test_closed_id_stays_closed(desk: Desk) -> None:
    """L2: an admit that arrives after its own record is refused for as long as its id is young."""
    await desk.open()
    ask = desk.ask()
    desk.pass_time(SECOND)
    await desk.limiter.settle(desk.tenant, (), ())
    await desk.admit(ask)
    await desk.settle({ask.request_id: 0})
    for _ in range(130):
        assert isinstance(await desk.admit(ask), NotDecided)
        desk.pass_time(SECOND)
        await desk.limiter.settle(desk.tenant, (), ())


@pytest.mark.parametrize("ahead_s", [-59, 0, 59])
async def test_tombstone_outlives_its_id(desk: Desk, ahead_s: int) -> None:
    """L2: however far the id's clock is off, its tombstone ends only when its age refuses it."""
    await desk.open()
    ask = desk.ask(age=-ahead_s * SECOND)
    await desk.admit(ask)
    await desk.settle({ask.request_id: 0})
    desk.pass_time(121 * SECOND)
    await desk.limiter.settle(desk.tenant, (), ())
    assert 0 == await desk.redis.zcard(f"nz:{{{desk.tenant}}}:closed")
    assert NotDecided("late", desk.now) == await desk.admit(ask)


@pytest.mark.parametrize("back_s", [20, 59, 61, 90, 119, 130, 200, 300, 720, 100_000])
async def test_clock_that_steps_back_costs_no_minutes(desk: Desk, back_s: int) -> None:
    """However far Redis's clock steps back, new requests are admitted again within two minutes."""
    await desk.open()
    for _ in range(30):
        await desk.settle({await desk.reserve(): 0})
        desk.pass_time(10 * SECOND)
    desk.pass_time(-back_s * SECOND)
    refused_s = 0
    for _ in range(back_s // 10 + 20 if back_s < 1000 else 200):
        if isinstance(await desk.admit(), NotDecided):
            refused_s += 10
        await desk.limiter.settle(desk.tenant, (), ())
        desk.pass_time(10 * SECOND)
    assert refused_s <= (0 if back_s <= 120 else 120)


async def test_clock_that_steps_back_reopens_no_id(desk: Desk) -> None:
    """L2: tombstones removed while the clock was ahead are remembered when it is back."""
    await desk.open()
    ask = desk.ask()
    await desk.admit(ask)
    await desk.settle({ask.request_id: 0})
    desk.pass_time(130 * SECOND)
    await desk.limiter.settle(desk.tenant, (), ())
    desk.pass_time(-130 * SECOND)
    assert NotDecided("late", desk.now) == await desk.admit(ask)


async def test_id_of_the_far_future_is_refused(desk: Desk) -> None:
    """L2: an id more than a minute ahead would outlive its own tombstone."""
    await desk.open()
    assert NotDecided("late", desk.now) == await desk.admit(desk.ask(age=-61 * SECOND))


async def test_last_answer_is_a_short_one(desk: Desk) -> None:
    """L3: what is left is granted whole, and one token of answer is enough to be worth it."""
    await desk.open(Limits(tokens_total=31))
    await desk.settle({await desk.reserve(): 20})
    decision = await desk.admit(desk.ask(wanted=400))
    assert isinstance(decision, Admitted)
    assert (10, 1) == (decision.input, decision.output)


async def test_prompt_without_an_answer_is_the_end(desk: Desk) -> None:
    """L3: a budget that has the prompt left and no token of answer is exhausted."""
    await desk.open(Limits(tokens_total=30))
    await desk.settle({await desk.reserve(): 20})
    decision = await desk.admit()
    assert LimitReached("total", "tenant", used=20, value=30, wait_us=0, held=0, needed=11) == decision


async def test_embedding_needs_no_answer(desk: Desk) -> None:
    """L3: a request without output fits into exactly its input."""
    await desk.open(Limits(tokens_total=30))
    await desk.settle({await desk.reserve(): 20})
    decision = await desk.admit(desk.ask(wanted=0))
    assert isinstance(decision, Admitted)
    assert (10, 0) == (decision.input, decision.output)


async def test_what_others_hold_shortens_no_answer(desk: Desk) -> None:
    """L3: an answer is shortened to what is not used; if others hold some of that, it waits."""
    await desk.open(Limits(tokens_total=100))
    running = await desk.reserve(wanted=40)
    assert ("held_total", "tenant") == refusal(await desk.admit(desk.ask(wanted=80)))
    await desk.settle({running: 15})
    decision = await desk.admit(desk.ask(wanted=80))
    assert isinstance(decision, Admitted)
    assert (10, 75) == (decision.input, decision.output)


@pytest.mark.parametrize("is_lost", [False, True])
async def test_budget_set_later_counts_what_runs_at_its_worst(desk: Desk, *, is_lost: bool) -> None:
    """L3: what was likely of a request counts nowhere: a budget sees the most that it can be charged."""
    await desk.open()
    running = replace(desk.ask(wanted=70), estimated_input=1, estimated_output=1)
    assert isinstance(await desk.admit(running), Admitted)
    if is_lost:
        await desk.redis.flushall()
        await desk.rebuild()
    desk.limits[desk.tenant] = Limits(tokens_total=99)
    desk.versions[desk.tenant] = 2
    await desk.limiter.raise_versions(desk.tenant, {None: 2})
    assert ("held_total", "tenant") == refusal(await desk.admit())
    await desk.settle({running.request_id: 80})
    decision = await desk.admit()
    assert isinstance(decision, Admitted)
    assert (10, 9) == (decision.input, decision.output)


@pytest.mark.parametrize(
    ("bound_in", "share", "output"),
    [
        (10, 0, 90_000),  # a cap of its own is granted as long as it fits
        (10, 8, 12_500),
        (45_000, 8, 5_000),  # its like fits beside it
        (60_000, 8, 1_024),
        (99_500, 8, 500),
    ],
)
async def test_answer_without_a_cap_takes_a_share(desk: Desk, bound_in: int, share: int, output: int) -> None:
    """L3: of what the tightest budget has left it takes a part, and room for another stays, or the least."""
    await desk.open(Limits(tokens_total=10**6), Limits(tokens_per_day=100_020))
    await desk.settle({await desk.reserve(): 20})
    ask = replace(desk.ask(bound_in=bound_in, wanted=90_000), share=share, least_share=1_024)
    decision = await desk.admit(ask)
    assert isinstance(decision, Admitted)
    assert (bound_in, output) == (decision.input, decision.output)


async def test_share_is_of_budgets_only(desk: Desk) -> None:
    """Without a budget an answer without a cap may be as long as the backends make it."""
    await desk.open(Limits(tokens_per_minute=50))
    decision = await desk.admit(replace(desk.ask(wanted=9_000), share=8, least_share=1))
    assert isinstance(decision, Admitted)
    assert 9_000 == decision.output


async def test_nothing_asked_for_is_still_checked(desk: Desk) -> None:
    """L3: a request that would cost nothing does not pass an exhausted budget."""
    await desk.open(Limits(tokens_total=20))
    await desk.settle({await desk.reserve(): 20})
    assert ("total", "tenant") == refusal(await desk.admit(desk.ask(bound_in=0, wanted=0)))


async def test_tightest_of_six_budgets_counts(desk: Desk) -> None:
    """L3: the budget with the least left, be it the tenant's or the key's, decides."""
    tenant = Limits(tokens_per_day=100, tokens_per_month=90, tokens_total=80)
    await desk.open(tenant, Limits(tokens_per_day=70, tokens_per_month=25, tokens_total=60))
    decision = await desk.admit(desk.ask(wanted=500))
    assert isinstance(decision, Admitted)
    assert (10, 15) == (decision.input, decision.output)


async def test_longest_end_is_named(desk: Desk) -> None:
    """Of several exhausted budgets the refusal names the one that comes back last."""
    await desk.open(Limits(tokens_per_day=20, tokens_per_month=20), Limits(tokens_per_day=20))
    await desk.settle({await desk.reserve(): 20})
    assert ("month", "tenant") == refusal(await desk.admit())


async def test_keys_share_the_tenants_budget(desk: Desk) -> None:
    """L3: what one key holds, another can't have, and its own budget stays whole."""
    await desk.open(Limits(tokens_total=30), Limits(), Limits(tokens_total=20))
    await desk.reserve()
    assert ("held_total", "tenant") == refusal(await desk.admit(desk.ask(key=desk.keys[1])))
    assert 0 == await desk.field(f"h:{desk.keys[1]}:t")


async def test_versions_only_rise(desk: Desk) -> None:
    """L7: an older version, published late, does not bring a revoked key back."""
    await desk.open()
    old = desk.ask()
    await desk.limiter.raise_versions(desk.tenant, {desk.key: 3, None: 2})
    await desk.limiter.raise_versions(desk.tenant, {desk.key: 1, None: 1})
    assert (2, 3) == await desk.limiter.versions(desk.tenant, desk.key)
    assert NotDecided("stale", desk.now) == await desk.admit(old)


async def test_tenant_is_published_once(desk: Desk) -> None:
    """L6: creating never touches a hash that has an epoch, not even another run's."""
    await desk.open()
    await desk.redis.hset(f"nz:{{{desk.tenant}}}", "epoch", "another run")
    before = await desk.content()
    await desk.limiter.create(desk.tenant, 1)
    assert before == await desk.content()


async def test_clock_is_redis_own(limiter: Limiter) -> None:
    """Without a clock of a test, the time is Redis's, to the microsecond and aware of its zone."""
    assert abs(await limiter.now() - datetime.now(UTC)) < timedelta(seconds=5)

"""What the scripts decide, one rule at a time; known bugs of limiters elsewhere each have their test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
from attrs import evolve
from redis.asyncio import Redis

from authz.admission import Admitted, Refused, Unfit
from authz.limits import Limiter
from authz.types import Limits, Period, Total, Windows
from tests.authz.limiting import Desk

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """A tenant with two keys."""
    async with Redis.from_url(redis_url) as redis:
        yield Desk(limiter, redis)


def refusal(decision: object) -> tuple[str, str]:
    """Which limit of whom refused."""
    assert isinstance(decision, Refused), decision
    return decision.limit, decision.scope


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
    before = await desk.dump()
    assert (limit, scope) == refusal(await desk.admit())
    assert before == await desk.dump()


@pytest.mark.parametrize("reason", ["lost", "stale", "closed", "late", "calendar"])
async def test_unfit_writes_nothing(desk: Desk, reason: str) -> None:
    """L1: a request that can't be judged changes no key either."""
    await desk.open()
    ask = desk.ask(age=timedelta(seconds=61)) if reason == "late" else desk.ask()
    if reason == "closed":
        await desk.admit(ask)
        await desk.settle({ask.request_id: 3})
    elif reason == "stale":
        await desk.limiter.raise_versions(desk.tenant, {desk.key: 2})
    elif reason == "calendar":
        ask = evolve(ask, valid_until=desk.now)
    elif reason == "lost":
        await desk.redis.hset(f"nz:{{{desk.tenant}}}", "epoch", "another run")
    before = await desk.dump()
    assert Unfit(reason, desk.now) == await desk.admit(ask)
    assert before == await desk.dump()


async def test_admit_twice_is_once(desk: Desk) -> None:
    """L2: a repeated admit gets the stored answer and changes nothing, whatever it asks for now."""
    await desk.open(Limits(requests_per_minute=5, tokens_total=100))
    ask = desk.ask()
    first, before = await desk.admit(ask), await desk.dump()
    assert first == await desk.admit(evolve(ask, bound_in=90, wanted=900))
    assert before == await desk.dump()


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
        assert isinstance(await desk.admit(ask), Unfit)
        desk.pass_time(SECOND)
        await desk.limiter.settle(desk.tenant, (), ())


@pytest.mark.parametrize("ahead_s", [-59, 0, 59])
async def test_tombstone_outlives_its_id(desk: Desk, ahead_s: int) -> None:
    """L2: however far the id's clock is off, its tombstone is gone only when its age refuses it."""
    await desk.open()
    ask = desk.ask(age=-ahead_s * SECOND)
    await desk.admit(ask)
    await desk.settle({ask.request_id: 0})
    desk.pass_time(121 * SECOND)
    await desk.limiter.settle(desk.tenant, (), ())
    assert 0 == await desk.redis.zcard(f"nz:{{{desk.tenant}}}:closed")
    assert Unfit("late", desk.now) == await desk.admit(ask)


async def test_clock_that_steps_back_reopens_no_id(desk: Desk) -> None:
    """L2: tombstones removed while the clock was ahead are remembered when it is back."""
    await desk.open()
    ask = desk.ask()
    await desk.admit(ask)
    await desk.settle({ask.request_id: 0})
    desk.pass_time(130 * SECOND)
    await desk.limiter.settle(desk.tenant, (), ())
    desk.pass_time(-130 * SECOND)
    assert Unfit("late", desk.now) == await desk.admit(ask)


async def test_id_of_the_far_future_is_refused(desk: Desk) -> None:
    """L2: an id more than a minute ahead would outlive its own tombstone."""
    await desk.open()
    assert Unfit("late", desk.now) == await desk.admit(desk.ask(age=-61 * SECOND))


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
    assert Refused("total", "tenant", used=20, value=30, wait_us=0, held=0) == decision


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


async def test_day_pays_for_what_it_admitted(desk: Desk) -> None:
    """A request that ends after midnight is paid by the day that admitted it; the new day is whole."""
    await desk.open(Limits(tokens_per_day=40, tokens_per_month=100))
    running = await desk.reserve()
    desk.pass_time(DAY)
    standing = await desk.limiter.standing(desk.tenant, (), Windows("2026-11-26", "2026-11"))
    assert standing is not None
    assert (0, 20) == (standing[0].day.held, standing[0].month.held)
    await desk.settle({running: 13})
    assert (13, 0) == (await desk.field("u:t:d:2026-11-25"), await desk.field("u:t:d:2026-11-26"))
    assert isinstance(await desk.admit(desk.ask(wanted=30)), Admitted)


async def test_windows_reset_on_their_own(desk: Desk) -> None:
    """Each window has its own counter: a new day leaves the month's alone, a new month the total's."""
    await desk.open(Limits(tokens_per_day=20, tokens_per_month=40, tokens_total=60))
    for limit, span in (("day", DAY), ("month", 6 * DAY), ("total", 60 * DAY)):
        await desk.settle({await desk.reserve(): 20})
        assert (limit, "tenant") == refusal(await desk.admit())
        desk.pass_time(span)


@pytest.mark.parametrize("limit", [1, 7, 10, 45, 61, 997, 7741])
async def test_burst_is_exactly_the_limit(desk: Desk, limit: int) -> None:
    """As many requests as the limit pass at once, and not one more, whatever a minute divides into."""
    await desk.open(Limits(requests_per_minute=limit))
    taken = [await desk.admit(desk.ask(bound_in=0, wanted=0)) for _ in range(min(limit, 100))]
    assert all(isinstance(decision, Admitted) for decision in taken)
    if limit <= 100:
        assert ("requests", "tenant") == refusal(await desk.admit())


@pytest.mark.parametrize("limits", [(7, 500), (500, 7), (7, 6)])
async def test_wait_suffices(desk: Desk, limits: tuple[int, int]) -> None:
    """L5: with several rates violated the longest wait is told: after it, alone, one is admitted."""
    tenant, key = (Limits(requests_per_minute=limit, tokens_per_minute=100 * limit) for limit in limits)
    await desk.open(tenant, key)
    while isinstance(decision := await desk.admit(desk.ask(wanted=99)), Admitted):
        pass
    assert isinstance(decision, Refused)
    desk.pass_time(timedelta(microseconds=decision.wait_us - 1000))
    assert isinstance(await desk.admit(desk.ask(wanted=99)), Refused)
    desk.pass_time(timedelta(microseconds=1000))
    assert isinstance(await desk.admit(desk.ask(wanted=99)), Admitted)


async def test_estimate_above_the_limit_is_not_locked_out(desk: Desk) -> None:
    """A single request dearer than a minute's tokens passes when the bucket is full, and owes the rest."""
    await desk.open(Limits(tokens_per_minute=60))
    running = await desk.reserve(wanted=590)
    await desk.settle({running: 600})
    decision = await desk.admit(desk.ask(bound_in=1, wanted=0))
    assert isinstance(decision, Refused)
    assert (540 + 1, 600) == (decision.wait_us // 1_000_000, decision.used)


async def test_unused_estimate_comes_back(desk: Desk) -> None:
    """What a request did not use of its estimate is there for the next one at once."""
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


async def test_clock_that_steps_back_locks_nobody_out(desk: Desk) -> None:
    """Buckets wait at most a minute for a clock that stepped back, and no other key suffers for it."""
    limits = Limits(requests_per_minute=1)
    await desk.open(Limits(), limits, limits)
    for key in desk.keys:
        await desk.reserve(key=key)
    desk.pass_time(-timedelta(hours=2))
    for key in desk.keys:
        assert isinstance(await desk.admit(desk.ask(key=key)), Admitted)


async def test_slot_is_free_when_its_request_is_done(desk: Desk) -> None:
    """L4: a done request frees its slot before the next admission; its tokens stay held."""
    await desk.open(Limits(concurrency=1), Limits(concurrency=1))
    running = await desk.reserve()
    assert ("concurrency", "tenant") == refusal(await desk.admit())
    await desk.limiter.free([(running, desk.tenant, desk.key)])
    await desk.reserve()
    assert 40 == await desk.field("h:t:t")


async def test_slot_of_a_dead_process_comes_back(desk: Desk) -> None:
    """L4: a slot nobody frees is free after the deadline and a margin; its tokens stay held."""
    await desk.open(Limits(concurrency=1))
    await desk.reserve()
    desk.pass_time(91 * SECOND)
    assert ("concurrency", "tenant") == refusal(await desk.admit())
    desk.pass_time(2 * SECOND)
    await desk.reserve()
    assert 40 == await desk.field("h:t:t")


async def test_overdue_reservations_are_found(desk: Desk) -> None:
    """L4: what no journal knows is on the list 60 s after its deadline, and off it once settled at 0."""
    await desk.open(Limits(tokens_total=30))
    running = await desk.reserve()
    assert () == await desk.limiter.overdue(desk.tenant, desk.now + 92 * SECOND)
    found = await desk.limiter.overdue(desk.tenant, desk.now + 93 * SECOND)
    assert (desk.admitted[running],) == found
    await desk.settle({running: 0})
    assert () == await desk.limiter.overdue(desk.tenant, desk.now + DAY)
    assert 0 == await desk.field("h:t:t")


async def test_settle_is_idempotent(desk: Desk) -> None:
    """B3: the same settlement again, or an older one after a newer, changes no counter."""
    await desk.open(Limits(tokens_total=100, tokens_per_minute=100))
    first = await desk.settle({await desk.reserve(): 7})
    second = await desk.settle({await desk.reserve(): 8})
    before = await desk.dump()
    for told in (second, first, first):
        await desk.publish(told)
    assert before == await desk.dump()
    assert 15 == await desk.field("u:t:t")


async def test_settlement_of_thousands(desk: Desk) -> None:
    """A settlement of any size goes through: thousands of requests of hundreds of keys and windows."""
    await desk.open()
    ids = [await desk.reserve() for _ in range(1201)]
    told = desk.commit(dict.fromkeys(ids, 2))
    many = tuple(Total(id_, Period.DAY, date(2026, 11, 25), 1, 1) for id_ in ids)
    await desk.limiter.settle(desk.tenant, told.closed, (*told.totals, *many))
    assert (0, 2402) == (await desk.field("h:t:t"), await desk.field("u:t:t"))
    assert 1 == await desk.field(f"u:{ids[-1]}:d:2026-11-25")
    assert () == await desk.limiter.overdue(desk.tenant, desk.now + DAY)


async def test_totals_rise_without_an_epoch(desk: Desk) -> None:
    """L6: a settlement during a loss is not lost: the total and the tombstone are there after it."""
    await desk.open(Limits(tokens_total=100))
    ask = desk.ask()
    await desk.admit(ask)
    await desk.redis.flushall()
    await desk.settle({ask.request_id: 20})
    assert Unfit("lost", desk.now) == await desk.admit(ask)
    await desk.rebuild()
    assert (20, 0) == (await desk.field("u:t:t"), await desk.field("h:t:t"))
    assert Unfit("closed", desk.now) == await desk.admit(ask)


async def test_old_windows_are_forgotten(desk: Desk) -> None:
    """Counters of days and months gone by do not pile up; what can still pay, and totals, stay."""
    await desk.open()
    for _ in range(60):
        await desk.settle({await desk.reserve(): 1})
        desk.pass_time(DAY)
    fields = {name.decode() for name in await desk.redis.hkeys(f"nz:{{{desk.tenant}}}")}
    used = sorted(name for name in fields if name.startswith("u:t:"))
    days = [f"u:t:d:2027-01-{day}" for day in ("20", "21", "22", "23")]
    assert [*days, "u:t:m:2026-12", "u:t:m:2027-01", "u:t:t"] == used
    assert 60 == await desk.field("u:t:t")


async def test_pruning_trusts_no_date_alone(desk: Desk) -> None:
    """A window of the far future prunes nothing that Redis's own clock says is current."""
    await desk.open()
    await desk.settle({await desk.reserve(): 5})
    wrong = Total(desk.tenant, Period.DAY, date(2036, 1, 1), 1, 1)
    await desk.limiter.settle(desk.tenant, (), (wrong,))
    assert 5 == await desk.field("u:t:d:2026-11-25")


async def test_standing_tells_what_admit_sees(desk: Desk) -> None:
    """What is shown of limits is what the next admission is measured by."""
    limits = Limits(requests_per_minute=6, tokens_per_minute=120, tokens_per_day=100)
    await desk.open(limits, limits)
    await desk.settle({await desk.reserve(): 15})
    await desk.reserve()
    desk.pass_time(SECOND)
    standing = await desk.limiter.standing(desk.tenant, desk.keys, Windows("2026-11-25", "2026-11"))
    assert standing is not None
    tenant, first, second = standing
    assert (desk.tenant, *desk.keys) == (tenant.scope, first.scope, second.scope)
    assert evolve(tenant, scope=desk.key) == first
    assert (15, 20, 1) == (tenant.day.used, tenant.day.held, tenant.running)
    assert (19_000_000, 16_500_000) == (tenant.requests_full_in_us, tenant.tokens_full_in_us)
    assert (0, 0, 0) == (second.day.used, second.running, second.tokens_full_in_us)
    await desk.redis.flushall()
    assert await desk.limiter.standing(desk.tenant, desk.keys, Windows("2026-11-25", "2026-11")) is None


async def test_versions_only_rise(desk: Desk) -> None:
    """L7: an older version, published late, does not bring a revoked key back."""
    await desk.open()
    old = desk.ask()
    await desk.limiter.raise_versions(desk.tenant, {desk.key: 3, None: 2})
    await desk.limiter.raise_versions(desk.tenant, {desk.key: 1, None: 1})
    assert (2, 3) == await desk.limiter.versions(desk.tenant, desk.key)
    assert Unfit("stale", desk.now) == await desk.admit(old)


async def test_tenant_is_published_once(desk: Desk) -> None:
    """L6: creating never touches a hash that has an epoch, not even another run's."""
    await desk.open()
    await desk.redis.hset(f"nz:{{{desk.tenant}}}", "epoch", "another run")
    before = await desk.dump()
    await desk.limiter.create(desk.tenant, 1)
    assert before == await desk.dump()


async def test_every_key_of_a_tenant_shares_its_slot(desk: Desk) -> None:
    """All keys of a tenant carry its hash tag, and only the sign of life of metering ever expires."""
    await desk.open(Limits(concurrency=5))
    running = await desk.reserve()
    await desk.reserve()
    await desk.settle({running: 1})
    for key in await desk.redis.keys():
        assert key.startswith(f"nz:{{{desk.tenant}}}".encode())
        assert -1 == await desk.redis.ttl(key)


async def test_metering_is_forgotten_when_silent(limiter: Limiter, redis_url: str, desk: Desk) -> None:
    """A node's metering vouches for 60 s; its sign of life has a true time to live in seconds."""
    node = desk.tenant
    assert await limiter.lag_ms(node) is None
    await limiter.vouch(node, lag_ms=12)
    assert 12 == await limiter.lag_ms(node)
    assert 50 < await desk.redis.ttl(f"nz:metering:{node}") <= 60


async def test_clock_is_redis_own(limiter: Limiter) -> None:
    """Without a clock of a test, the time is Redis's, to the microsecond and aware of its zone."""
    assert abs(await limiter.now() - datetime.now(UTC)) < timedelta(seconds=5)

"""A settlement of many requests is what each would be alone; what the first layout left goes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import date, timedelta
from operator import attrgetter
from random import Random
from struct import unpack
from uuid import UUID, uuid4

import pytest

from authz.limiter import keyspace, wire
from authz.limiter.limiter import SETTLED_AT_ONCE, Limiter
from authz.types import Closed, Limits, Period, Total
from tests.authz.asking import uuid7
from tests.authz.limiting import Desk, refusal
from tests.redis_cluster import client, on_both

pytestmark = on_both

SECOND = timedelta(seconds=1)
PAUSES_S = [0, 0, 0.001, 0.7, 5, 21, -0.4, -9, 43_000]


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """A tenant with two keys."""
    async with client(redis_url) as redis:
        yield Desk(limiter, redis)


async def content(desk: Desk) -> dict[bytes, object]:
    """All that Redis holds; buckets to the µs."""
    found = await desk.content()
    fields = found[keyspace.tenant(desk.tenant).encode()]
    assert isinstance(fields, dict)
    for name in [name for name in fields if name.startswith(b"b:")]:
        fields[name] = [round(number) for number in unpack(wire.BUCKET, fields[name])]
    return found


async def full_in_us(desk: Desk) -> tuple[int, ...]:
    """The time until the tokens of the tenant, and of its first key, are full again."""
    standings = await desk.limiter.standing(desk.tenant, desk.keys[:1], desk.ask().windows)
    assert standings is not None
    return tuple(standing.tokens_full_in_us for standing in standings)


async def reserved_at_random(desk: Desk, random: Random) -> list[Closed]:
    """Requests of both keys, around midnight and the end of a month, and what each of them cost."""
    desk.pass_time(timedelta(days=5, hours=random.choice([1, 11, 12])))
    closed = []
    for _ in range(random.choice([3, 12, 30])):
        desk.pass_time(random.choice(PAUSES_S) * SECOND)
        key = random.choice(desk.keys)
        id_ = await desk.reserve(bound_in=random.randrange(40), wanted=random.randrange(60), key=key)
        closed.append(Closed(id_, key, random.choice([0, 5, 50, 5000])))
    return closed


@pytest.mark.parametrize("seed", range(8))
async def test_a_batch_is_its_requests_one_by_one(desk: Desk, seed: int) -> None:
    """L3, B3: windows, buckets, slots and tombstones are the same, with repeated and unknown ids, too."""
    random = Random(seed)  # noqa: S311 (nothing is secret here)
    tpm = random.choice([None, 90_000])
    await desk.open(Limits(10_000, tpm), Limits(10_000, 80_000), Limits())
    reserved = await reserved_at_random(desk, random)
    unknown = Closed(uuid7(int(desk.now.timestamp() * 1000)), random.choice(desk.keys), 7)
    drawn = random.sample(reserved, k=len(reserved) * 2 // 3)
    closed = [*drawn, unknown, *(Closed(one.request_id, one.key, 9) for one in drawn[:2])]
    random.shuffle(closed)
    await desk.limiter.free([(one.request_id, desk.tenant, one.key) for one in drawn[::3]])
    desk.pass_time(random.choice(PAUSES_S) * SECOND)
    before = {key: await desk.redis.dump(key) for key in await desk.redis.keys()}
    await desk.limiter.settle(desk.tenant, closed, ())
    at_once = await content(desk)
    for key in await desk.redis.keys():
        await desk.redis.delete(key)
    for key, value in before.items():
        await desk.redis.restore(key, 0, value)
    for one in sorted(closed, key=attrgetter("key")):
        await desk.limiter.settle(desk.tenant, [one], ())
    assert at_once == await content(desk)
    await desk.limiter.settle(desk.tenant, closed, ())
    assert at_once == await content(desk)
    run = desk.limiter.run(desk.tenant)
    left = {one.request_id for one in reserved} - {one.request_id for one in drawn}
    held = await desk.redis.hkeys(keyspace.held(desk.tenant, run))
    assert left == {UUID(name.decode()) for name in held if not name.startswith(b"h:")}
    for key in (None, *desk.keys):
        slots = await desk.redis.zrange(keyspace.slots(desk.tenant, run, key), 0, -1)
        of_key = {one.request_id for one in reserved if key in {None, one.key}}
        assert left & of_key == {UUID(id_.decode()) for id_ in slots}


async def test_a_repeated_id_is_released_once(desk: Desk) -> None:
    """L3: twice in one settlement, a request releases what it held once; its first cost is what counts."""
    await desk.open(Limits(tokens_per_minute=60), Limits(tokens_per_minute=60))
    first, _ = await desk.reserve(), await desk.reserve()
    twice = [Closed(first, desk.key, tokens) for tokens in (5, 13)]
    await desk.limiter.settle(desk.tenant, twice, ())
    assert (20, 20) == (await desk.field("h:t:t"), await desk.field(f"h:{desk.key}:m:2026-11"))
    assert (25_000_000, 25_000_000) == await full_in_us(desk)


async def test_a_clock_that_stepped_back_gives_nothing_back_twice(desk: Desk) -> None:
    """A refund of more than a bucket still lacks fills it and no more, behind such a clock, too."""
    await desk.open(Limits(tokens_per_minute=60))
    first = await desk.reserve()
    desk.pass_time(10 * SECOND)
    await desk.reserve(bound_in=0, wanted=0)
    desk.pass_time(-15 * SECOND)
    await desk.settle({first: 0})
    await desk.reserve(bound_in=60, wanted=0)
    assert ("tokens", "tenant") == refusal(await desk.admit(desk.ask(bound_in=1, wanted=0)))


async def test_a_window_that_rises_twice_keeps_its_newest(desk: Desk) -> None:
    """B3: of two totals of a window in one settlement the one of the higher version stays, in any order."""
    await desk.open()
    for versions in ((1, 3), (5, 4)):
        totals = [Total(desk.tenant, Period.DAY, date(2026, 11, 25), 100 * v, v) for v in versions]
        await desk.limiter.settle(desk.tenant, (), totals)
        assert 100 * max(versions) == await desk.field("u:t:d:2026-11-25")
        assert max(versions) == await desk.field("w:t:d:2026-11-25")


async def test_each_window_is_compared_with_its_own_version(desk: Desk) -> None:
    """B3: in one settlement, a total that is older than Redis's stays away, one that is newer does not."""
    await desk.open()
    day, month = (Period.DAY, date(2026, 11, 25)), (Period.MONTH, date(2026, 11, 1))
    for versions in ((9, 2), (5, 3), (8, 7), (10, 6)):
        totals = [
            Total(desk.tenant, period, start, 100 * version, version)
            for (period, start), version in zip((day, month), versions, strict=True)
        ]
        await desk.limiter.settle(desk.tenant, (), totals)
    assert (1000, 10) == (await desk.field("u:t:d:2026-11-25"), await desk.field("w:t:d:2026-11-25"))
    assert (700, 7) == (await desk.field("u:t:m:2026-11"), await desk.field("w:t:m:2026-11"))


async def test_a_batch_of_as_many_keys(desk: Desk) -> None:
    """Requests of different keys, a full script of them, are each released from their own key and slots."""
    await desk.open()
    keys = [uuid4() for _ in range(SETTLED_AT_ONCE)]
    await desk.limiter.raise_versions(desk.tenant, dict.fromkeys(keys, 1))
    desk.versions |= dict.fromkeys(keys, 1)
    desk.limits |= dict.fromkeys(keys, Limits())
    used = {await desk.reserve(key=key): 2 for key in keys}
    running = await desk.reserve(key=keys[7])
    await desk.settle(used)
    run = desk.limiter.run(desk.tenant)
    held = await desk.redis.hgetall(keyspace.held(desk.tenant, run))
    assert {b"20"} == {value for name, value in held.items() if name.startswith(b"h:")}
    assert 1 + 6 == len(held)
    slots = [name for name in await desk.redis.keys() if b":slots:" in name]
    assert [keyspace.slots(desk.tenant, run, keys[7]).encode()] == slots
    assert [str(running).encode()] == await desk.redis.zrange(slots[0], 0, -1)


async def test_what_the_first_layout_held_is_removed(desk: Desk) -> None:
    """Reservations in JSON are of a run that nothing reads; they go with their slots, whoever's they were."""
    await desk.open()
    held, slots = keyspace.held(desk.tenant, "first"), keyspace.slots(desk.tenant, "first", desk.key)
    packed = json.dumps({"key": str(desk.key), "input": "10", "output": "10", "charges": {}})
    await desk.redis.hset(held, str(desk.tenant), packed)
    await desk.redis.zadd(slots, {str(desk.tenant): 1})
    await desk.redis.sadd(keyspace.past(desk.tenant), "first")
    await desk.limiter.forget_past(desk.tenant)
    assert [keyspace.tenant(desk.tenant).encode()] == await desk.redis.keys()


async def test_what_the_first_layout_left_is_forgotten(desk: Desk) -> None:
    """Fields that nothing reads any more go with the windows of long ago; all others stay."""
    await desk.open(Limits(tokens_per_minute=60))
    name = keyspace.tenant(desk.tenant)
    earlier = {f"{kind}:{scope}": 1 for kind in "nqk" for scope in ("t", desk.key)} | {"h:t:t": 20}
    await desk.redis.hset(name, mapping=earlier)
    await desk.settle({await desk.reserve(): 1})
    left = {field.decode() for field in await desk.redis.hkeys(name)}
    assert not left & set(earlier)
    assert {"epoch", "v", f"v:{desk.key}", "b:t", "u:t:t", "w:t:t"} <= left

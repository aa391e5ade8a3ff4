"""After a loss of Redis: which reading of Postgres may end it, what it replaces, and what it keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from attrs import evolve

from authz.limiter import keyspace
from authz.limiter.admission import Admitted, NotDecided
from authz.limiter.limiter import Limiter
from authz.types import Limits
from tests.authz.limiting import Desk
from tests.redis_cluster import client, on_both

pytestmark = on_both

SECOND = timedelta(seconds=1)


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """A tenant with two keys."""
    async with client(redis_url) as redis:
        yield Desk(limiter, redis)


async def age(desk: Desk) -> None:
    """Redis comes back with what it held in an earlier run."""
    run = desk.limiter.run(desk.tenant)
    for key in await desk.redis.keys(f"nz:{{{desk.tenant}}}:{run}:*"):
        await desk.redis.rename(key, key.replace(run.encode(), b"earlier"))
    await desk.redis.hset(keyspace.tenant(desk.tenant), "epoch", "earlier")


async def test_rebuild_replaces_what_was_held(desk: Desk) -> None:
    """L4: reservations and slots that came with a snapshot are dropped: only open rows are held again."""
    await desk.open()
    forgotten, running = await desk.reserve(), await desk.reserve()
    await age(desk)
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    assert await desk.read(lost, ran=[running]).write(desk.limiter)
    run = desk.limiter.run(desk.tenant)
    names = (
        keyspace.opened(desk.tenant, run),
        *(keyspace.slots(desk.tenant, run, k) for k in (None, desk.key)),
    )
    for zset in names:
        ids = await desk.redis.zrange(zset, 0, -1)
        assert [str(running)] == [id_.decode() for id_ in ids]
    assert not await desk.redis.hexists(keyspace.held(desk.tenant, run), str(forgotten))
    assert 20 == await desk.field(f"h:{desk.key}:t")


async def test_nothing_is_admitted_behind_a_mark(desk: Desk) -> None:
    """L6: a process that still takes Redis for the earlier run admits nothing once the loss is noticed."""
    await desk.open()
    await age(desk)
    current = desk.limiter.run(desk.tenant)
    desk.limiter._redis.of(desk.tenant).run_id = "earlier"
    assert isinstance(await desk.admit(), Admitted)
    desk.limiter._redis.of(desk.tenant).run_id = current
    assert await desk.limiter.notice(desk.tenant) is not None
    desk.limiter._redis.of(desk.tenant).run_id = "earlier"
    assert NotDecided("lost", desk.now) == await desk.admit()


async def test_nothing_of_an_earlier_run_is_left(desk: Desk) -> None:
    """What an earlier run held is removed after the rebuild, also if a first attempt was interrupted."""
    await desk.open()
    for key in (*desk.keys, desk.key):
        await desk.reserve(key=key)
    await age(desk)
    await desk.redis.hset(keyspace.tenant(desk.tenant), "mark", "interrupted:nonce")
    await desk.redis.zadd(keyspace.slots(desk.tenant, "interrupted"), {"a": 1})
    await desk.rebuild()
    await desk.limiter.forget_past(desk.tenant)
    run = desk.limiter.run(desk.tenant)
    keys = [key.decode() for key in await desk.redis.keys()]
    assert [key for key in keys if run not in key] == [keyspace.tenant(desk.tenant)]
    assert 60 == await desk.field("h:t:t")


async def test_batch_restores_nothing_that_closed_meanwhile(desk: Desk) -> None:
    """L2, L3: what settles between two batches is neither held again nor left in an earlier batch."""
    await desk.open(Limits(tokens_total=100))
    first, second, running = [await desk.reserve() for _ in range(3)]
    await desk.redis.flushall()
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    desk.pass_time(3 * SECOND)
    whole = desk.read(lost)
    assert await desk.limiter.restore(whole.reading, whole.batches[-3])
    await desk.settle({first: 1, second: 2})
    assert await whole.write(desk.limiter)
    assert await desk.redis.hget(keyspace.held(desk.tenant, desk.limiter.run(desk.tenant)), str(running))
    assert (3, 20) == (await desk.field("u:t:t"), await desk.field("h:t:t"))


async def test_mark_of_the_future_is_replaced(desk: Desk) -> None:
    """A clock that steps back after a loss was noticed delays its end by no more than the usual 2 s."""
    await desk.open()
    await desk.redis.flushall()
    assert await desk.limiter.notice(desk.tenant) is not None
    desk.pass_time(-720 * SECOND)
    again = await desk.limiter.notice(desk.tenant)
    assert again is not None
    assert desk.now == again.marked_at


async def test_reading_of_before_a_step_back_is_not_written(desk: Desk) -> None:
    """L2: a reading of before the clock stepped back may be of any age, so it counts as old."""
    await desk.open()
    await desk.redis.flushall()
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    desk.pass_time(60 * SECOND)
    reading = desk.read(lost)
    desk.pass_time(-30 * SECOND)
    assert not await reading.write(desk.limiter)


async def test_reading_of_an_earlier_loss_is_not_written(desk: Desk) -> None:
    """L6: a rebuild writes only while the mark stands that it was started for: not after a second loss."""
    await desk.open()
    losses = []
    for _ in range(2):
        await desk.redis.flushall()
        losses.append(await desk.limiter.notice(desk.tenant))
    first, second = losses
    assert first is not None
    assert second is not None
    desk.pass_time(3 * SECOND)
    assert not await desk.read(first).write(desk.limiter)
    assert await desk.read(second).write(desk.limiter)
    assert not await desk.read(second).write(desk.limiter)


async def test_old_reading_is_not_written(desk: Desk) -> None:
    """L6: a reading is written within a minute: until then the tombstones of what it calls open live."""
    await desk.open()
    await desk.redis.flushall()
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    whole = desk.read(lost)
    desk.pass_time(61 * SECOND)
    assert not await whole.write(desk.limiter)
    younger = evolve(whole, reading=evolve(whole.reading, read_at=desk.now - 60 * SECOND))
    assert await younger.write(desk.limiter)


async def test_rebuild_keeps_what_is_newer(desk: Desk) -> None:
    """L3, L7: what settled, and which versions rose, between the reading and its writing is kept."""
    await desk.open(Limits(tokens_total=100))
    old, running = await desk.reserve(), await desk.reserve()
    await desk.redis.flushall()
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    desk.pass_time(3 * SECOND)
    reading = desk.read(lost)
    await desk.settle({old: 17})
    await desk.limiter.raise_versions(desk.tenant, {desk.key: 5})
    assert await reading.write(desk.limiter)
    assert (17, 20) == (await desk.field("u:t:t"), await desk.field("h:t:t"))
    held = await desk.redis.hkeys(keyspace.held(desk.tenant, desk.limiter.run(desk.tenant)))
    assert [str(running)] == [id_.decode() for id_ in held if not id_.startswith(b"h:")]
    assert (1, 5) == await desk.limiter.versions(desk.tenant, desk.key)


async def test_restored_mark_ends_no_loss(desk: Desk) -> None:
    """L6: a mark that came back with a snapshot is of another loss: what was read for it is not written."""
    await desk.open()
    await desk.redis.flushall()
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    desk.pass_time(3 * SECOND)
    whole = desk.read(lost)
    reading = evolve(whole, reading=evolve(whole.reading, mark="another run:nonce"))
    await desk.redis.hset(keyspace.tenant(desk.tenant), "mark", "another run:nonce")
    before = await desk.content()
    assert not await reading.write(desk.limiter)
    assert before == await desk.content()
    again = await desk.limiter.notice(desk.tenant)
    assert again is not None
    assert desk.now == again.marked_at


async def test_creating_ends_what_looked_like_a_loss(desk: Desk) -> None:
    """L6: a process may look for a tenant before it is published; no mark of that is left."""
    assert await desk.limiter.notice(desk.tenant) is not None
    await desk.open()
    assert await desk.limiter.notice(desk.tenant) is None
    assert isinstance(await desk.admit(), Admitted)
    assert {"epoch", "v"} < {name.decode() for name in await desk.redis.hkeys(f"nz:{{{desk.tenant}}}")}
    assert 0 == await desk.field("mark_us")

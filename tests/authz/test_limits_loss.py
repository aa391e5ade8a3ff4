"""After a loss of Redis: which reading of Postgres may end it, what it replaces, and what it keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from attrs import evolve
from redis.asyncio import Redis

from authz.limiter.admission import Admitted
from authz.limiter.limiter import Limiter
from authz.types import Limits
from tests.authz.limiting import Desk

SECOND = timedelta(seconds=1)


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """A tenant with two keys."""
    async with Redis.from_url(redis_url) as redis:
        yield Desk(limiter, redis)


async def test_rebuild_replaces_what_was_held(desk: Desk) -> None:
    """L4: reservations and slots that came with a snapshot are dropped: only open rows are held again."""
    await desk.open()
    forgotten, running = await desk.reserve(), await desk.reserve()
    await desk.redis.hset(f"nz:{{{desk.tenant}}}", "epoch", "another run")
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    assert await desk.limiter.rebuild(desk.read(lost, ran=[running]))
    for zset in ("open", "slots", f"slots:{desk.key}"):
        ids = await desk.redis.zrange(f"nz:{{{desk.tenant}}}:{zset}", 0, -1)
        assert [str(running)] == [id_.decode() for id_ in ids]
    assert not await desk.redis.hexists(f"nz:{{{desk.tenant}}}:held", str(forgotten))
    assert 20 == await desk.field(f"h:{desk.key}:t")


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
    assert not await desk.limiter.rebuild(desk.read(first))
    assert await desk.limiter.rebuild(desk.read(second))
    assert not await desk.limiter.rebuild(desk.read(second))


async def test_old_reading_is_not_written(desk: Desk) -> None:
    """L6: a reading is written within a minute: until then the tombstones of what it calls open live."""
    await desk.open()
    await desk.redis.flushall()
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    reading = desk.read(lost)
    desk.pass_time(61 * SECOND)
    assert not await desk.limiter.rebuild(reading)
    assert await desk.limiter.rebuild(evolve(reading, read_at=desk.now - 60 * SECOND))


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
    assert await desk.limiter.rebuild(reading)
    assert (17, 20) == (await desk.field("u:t:t"), await desk.field("h:t:t"))
    assert [str(running)] == [id_.decode() for id_ in await desk.redis.hkeys(f"nz:{{{desk.tenant}}}:held")]
    assert (1, 5) == await desk.limiter.versions(desk.tenant, desk.key)


async def test_restored_mark_ends_no_loss(desk: Desk) -> None:
    """L6: a mark that came back with a snapshot is of another loss: what was read for it is not written."""
    await desk.open()
    await desk.redis.flushall()
    lost = await desk.limiter.notice(desk.tenant)
    assert lost is not None
    desk.pass_time(3 * SECOND)
    reading = evolve(desk.read(lost), mark="another run:nonce")
    await desk.redis.hset(f"nz:{{{desk.tenant}}}", "mark", reading.mark)
    before = await desk.content()
    assert not await desk.limiter.rebuild(reading)
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

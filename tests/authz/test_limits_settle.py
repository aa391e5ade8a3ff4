"""Settlement, sweep and time change the counters, and limits are shown by them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta

import pytest
from attrs import evolve

from authz.errors import LimiterUnavailable
from authz.limiter import keyspace
from authz.limiter import limiter as limits
from authz.limiter.admission import Admitted, NotDecided
from authz.limiter.limiter import Limiter
from authz.types import Limits, Period, Total, Windows
from tests.authz.limiting import Desk, refusal
from tests.redis_cluster import client, on_both

pytestmark = on_both

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """A tenant with two keys."""
    async with client(redis_url) as redis:
        yield Desk(limiter, redis)


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


async def test_slot_is_free_when_its_request_is_done(desk: Desk) -> None:
    """L4: a done request frees its slot before the next admission; its tokens stay held."""
    await desk.open(Limits(concurrency=1), Limits(concurrency=1))
    running = await desk.reserve()
    assert ("concurrency", "tenant") == refusal(await desk.admit())
    await desk.limiter.free([(running, desk.tenant, desk.key)])
    await desk.reserve()
    assert 40 == await desk.field("h:t:t")


async def test_slot_of_a_dead_process_comes_back(desk: Desk) -> None:
    """L4: a slot that is not freed is free after the deadline and a margin; its tokens stay held."""
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
    assert 0 == await desk.redis.zcard(keyspace.opened(desk.tenant, desk.limiter.run(desk.tenant)))
    assert 0 == await desk.field("h:t:t")


async def test_nothing_held_is_settled_too(desk: Desk) -> None:
    """B3: a request that reserved nothing is settled like any other."""
    await desk.open()
    free = await desk.reserve(bound_in=0, wanted=0)
    await desk.settle({free: 0, await desk.reserve(): 20})
    assert (20, 0) == (await desk.field("u:t:t"), await desk.field("h:t:t"))


async def test_settle_is_idempotent(desk: Desk) -> None:
    """B3: the same settlement again, or an older one after a newer, changes no counter."""
    await desk.open(Limits(tokens_total=100, tokens_per_minute=100))
    first = await desk.settle({await desk.reserve(): 7})
    second = await desk.settle({await desk.reserve(): 8})
    before = await desk.content()
    for publication in (second, first, first):
        await desk.publish(publication)
    assert before == await desk.content()
    assert 15 == await desk.field("u:t:t")


async def test_settlement_of_thousands(desk: Desk) -> None:
    """A settlement of any size goes through: thousands of requests of hundreds of keys and windows."""
    await desk.open()
    ids = [await desk.reserve() for _ in range(1201)]
    publication = desk.commit(dict.fromkeys(ids, 2))
    many = tuple(Total(id_, Period.DAY, date(2026, 11, 25), 1, 1) for id_ in ids)
    await desk.limiter.settle(desk.tenant, publication.closed, (*publication.totals, *many))
    assert (0, 2402) == (await desk.field("h:t:t"), await desk.field("u:t:t"))
    assert 1 == await desk.field(f"u:{ids[-1]}:d:2026-11-25")
    assert () == await desk.limiter.overdue(desk.tenant, desk.now + DAY)


async def test_totals_rise_before_anything_else(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: a settlement of several scripts that ends halfway has raised every total: too much is refused."""
    monkeypatch.setattr(limits, "SETTLED_AT_ONCE", 1)
    await desk.open()
    used = {await desk.reserve(): 20, await desk.reserve(): 20}
    held = keyspace.held(desk.tenant, desk.limiter.run(desk.tenant))
    await desk.redis.hset(held, str(list(used)[1]), "not a reservation")
    with pytest.raises(LimiterUnavailable, match="Redis refused a command"):
        await desk.settle(used)
    assert (40, 20) == (await desk.field("u:t:t"), await desk.field("h:t:t"))


async def test_totals_rise_without_an_epoch(desk: Desk) -> None:
    """L6: a settlement during a loss is not lost: the total and the tombstone are there after it."""
    await desk.open(Limits(tokens_total=100))
    ask = desk.ask()
    await desk.admit(ask)
    await desk.redis.flushall()
    await desk.settle({ask.request_id: 20})
    assert NotDecided("lost", desk.now) == await desk.admit(ask)
    await desk.rebuild()
    assert (20, 0) == (await desk.field("u:t:t"), await desk.field("h:t:t"))
    assert NotDecided("closed", desk.now) == await desk.admit(ask)


async def test_old_windows_are_forgotten(desk: Desk) -> None:
    """Counters of past days and months do not pile up; what can still pay, and totals, stay."""
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


async def test_standing_is_what_admit_sees(desk: Desk) -> None:
    """The limits that are shown are what the next admission is measured by."""
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
    for link in limiter.links():
        assert 50 < await desk.redis.ttl(keyspace.metering(node, link.server.tag)) <= 60

"""After a loss of Redis no request is admitted before the counters say what Postgres says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from attrs import define
from redis.asyncio import Redis

from authz.accounts.keys import CreatedKey, set_key_state
from authz.accounts.session import Session
from authz.decision import calendar as windows
from authz.limiter.admission import Admission, Admitted, LimitReached, NotDecided
from authz.limiter.limiter import Limiter
from authz.rebuild import Rebuilder
from authz.store import AUTHZ_ROLE, Store
from authz.types import Identity, Limits
from authz.versions import publish
from tests.authz.asking import uuid7
from tests.authz.limiting import NOON
from tests.redis_cluster import client, on_both

pytestmark = on_both

NODES = (uuid4(), uuid4())
BOOT = uuid7()


@define
class Loss:
    """A tenant in real stores whose Redis was emptied, with a clock of our own."""

    session: Session
    store: Store
    owner_of_tables: asyncpg.Connection
    identity: Identity
    rebuilder: Rebuilder
    redis: Redis
    now: datetime = NOON

    @property
    def tenant(self) -> UUID:
        """The tenant's id."""
        return self.identity.tenant

    def pass_time(self, seconds: float) -> None:
        """Move Redis's clock."""
        self.now += timedelta(seconds=seconds)
        self.session.limiter.clock_us = round(self.now.timestamp() * 1_000_000)

    async def mark(self) -> None:
        """Lose everything, notice it, and wait until every Grant of before is too old."""
        await self.redis.flushall()
        assert await self.rebuilder._step(self.tenant) is not None
        self.pass_time(2.1)

    async def read_to_the_end(self, *nodes: UUID) -> None:
        """Metering commits to an end of file of these nodes' journals, read just now."""
        for node in nodes:
            await self.execute(
                "INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $2, $3) "
                "ON CONFLICT (node) DO UPDATE SET eof_at = $3",
                *(node, BOOT, self.now),
            )

    async def execute(self, query: str, *arguments: object) -> None:
        """Write what metering would have written."""
        await self.owner_of_tables.execute(query, *arguments)

    async def admit(self, *, total: int = 100) -> Admitted | LimitReached | NotDecided:
        """Ask for 10 + 10 tokens under a budget of the tenant and two slots of the key."""
        calendar = windows.at(self.now, "UTC")
        return await self.session.limiter.admit(
            Admission(
                request_id=uuid7(int(self.now.timestamp() * 1000)),
                tenant=self.tenant,
                key=self.identity.key,
                tenant_version=1,
                key_version=1,
                tenant_limits=Limits(tokens_total=total),
                key_limits=Limits(concurrency=2),
                windows=calendar.windows,
                valid_from_us=calendar.valid_from_us,
                valid_until_us=calendar.valid_until_us,
                bound_in=10,
                wanted=10,
                share=0,
                least_share=0,
                estimated_input=1,
                estimated_output=1,
                deadline_s=30,
            )
        )


@pytest.fixture
async def loss(
    session: Session,
    store: Store,
    owner_of_tables: asyncpg.Connection,
    owner: Identity,
    redis_url: str,
) -> AsyncIterator[Loss]:
    """A tenant with a key, still whole."""
    rebuilder = Rebuilder(store, session.limiter)
    async with client(redis_url) as redis:
        found = Loss(session, store, owner_of_tables, owner, rebuilder, redis)
        found.pass_time(0)
        yield found
        await rebuilder.close()


async def finish(rebuilder: Rebuilder) -> None:
    """Wait until nothing is being rebuilt."""
    while not rebuilder.is_idle:
        await asyncio.sleep(0.001)


async def test_no_request_is_admitted_before(loss: Loss) -> None:
    """L6: after a flush every admission is refused until the hash is rebuilt, then they go on."""
    await loss.read_to_the_end(*NODES)
    assert isinstance(await loss.admit(), Admitted)
    await loss.mark()
    assert NotDecided("lost", loss.now) == await loss.admit()
    assert await loss.rebuilder._step(loss.tenant) is not None
    assert NotDecided("lost", loss.now) == await loss.admit()
    await loss.read_to_the_end(*NODES)
    assert await loss.rebuilder._step(loss.tenant) is None
    assert isinstance(await loss.admit(), Admitted)


async def test_two_seconds_must_pass(loss: Loss) -> None:
    """L6: an end of file proves nothing before every Grant of before the loss is too old to be served."""
    await loss.redis.flushall()
    for seconds, is_whole in ((0, False), (1.9, False), (0.2, True)):
        loss.pass_time(seconds)
        await loss.read_to_the_end(NODES[0])
        assert is_whole is (await loss.rebuilder._step(loss.tenant) is None)


async def test_every_node_is_waited_for(loss: Loss) -> None:
    """L6: the rebuild waits for the journal of every node that Postgres knows, unless it is retired."""
    await loss.read_to_the_end(*NODES)
    await loss.mark()
    await loss.read_to_the_end(NODES[0])
    assert await loss.rebuilder._step(loss.tenant) is not None
    await loss.execute("UPDATE nodes SET retired_at = now() WHERE node = $1", NODES[1])
    assert await loss.rebuilder._step(loss.tenant) is None


async def test_counters_say_what_postgres_says(loss: Loss) -> None:
    """L3, L4, L6: what was billed is used, what runs is held and has its slot, what is closed stays so."""
    closed = uuid7(int(loss.now.timestamp() * 1000))
    await loss.execute(
        "INSERT INTO budget_windows (scope_id, period, start, tenant_id, used, version) "
        "VALUES ($1, 'total', '1970-01-01', $1, 55, 7)",
        loss.tenant,
    )
    for likely, most in (((1, 3), (6, 4)), ((6, 4), (None, None))):  # the release before writes no ceiling
        await loss.execute(
            "INSERT INTO open_requests (request_id, node, boot, tenant_id, key_id, reserved_input, "
            "reserved_output, ceiling_input, ceiling_output, day, month, deadline) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '2026-11-25', '2026-11-01', $10)",
            *(uuid7(), NODES[0], BOOT, loss.tenant, loss.identity.key, *likely, *most),
            loss.now + timedelta(seconds=30),
        )
    await loss.execute("SELECT ensure_ledger_partition('2026-11-25')")
    await loss.execute(
        "INSERT INTO ledger (request_id, entry, at, node, boot, tenant_id, outcome, input_tokens, "
        "output_tokens, usage_source) VALUES ($1, 0, $2, $3, $4, $5, 'completed', 5, 5, 'reported')",
        *(closed, loss.now, NODES[0], BOOT, loss.tenant),
    )
    await loss.mark()
    await loss.read_to_the_end(NODES[0])
    assert await loss.rebuilder._step(loss.tenant) is None
    calendar = windows.at(loss.now, "UTC")
    standing = await loss.session.limiter.standing(loss.tenant, [loss.identity.key], calendar.windows)
    assert standing is not None
    assert (55, 20, 2) == (standing[0].total.used, standing[0].total.held, standing[0].running)
    assert [b"%b" % str(closed).encode()] == await loss.redis.zrange(f"nz:{{{loss.tenant}}}:closed", 0, -1)
    held = LimitReached("held_total", "tenant", used=55, value=94, wait_us=0, held=20, needed=20)
    assert held == await loss.admit(total=94)
    assert LimitReached(
        "concurrency", "key", used=2, value=2, wait_us=0, held=0, needed=0
    ) == await loss.admit(total=95)


async def test_revoked_key_stays_revoked(loss: Loss, key: CreatedKey) -> None:
    """L7: a revoke that returned before the loss holds after it."""
    await set_key_state(loss.session, key.prefix, "revoked")
    await loss.mark()
    await loss.read_to_the_end(NODES[0])
    assert await loss.rebuilder._step(loss.tenant) is None
    assert NotDecided("stale", loss.now) == await loss.admit()


async def test_unpublished_version_is_published(loss: Loss) -> None:
    """L7: a version that is committed and not in Redis is raised by whoever repeats the publication."""
    await loss.execute("UPDATE keys SET version = 2 WHERE id = $1", loss.identity.key)
    assert isinstance(await loss.admit(), Admitted)
    assert 1 == await publish(loss.session.store, loss.session.limiter)
    assert NotDecided("stale", loss.now) == await loss.admit()
    assert 0 == await publish(loss.session.store, loss.session.limiter)


async def test_two_processes_rebuild_once(loss: Loss, redis_url: str) -> None:
    """L6: several processes may notice one loss; the hash is rebuilt by one of them and valid for all."""
    other = await Limiter.connect(redis_url)
    await loss.mark()
    await loss.read_to_the_end(NODES[0])
    other.clock_us = loss.session.limiter.clock_us
    rebuilders = (loss.rebuilder, Rebuilder(loss.store, other))
    for rebuilder in rebuilders:
        rebuilder.notice(loss.tenant)
    for rebuilder in rebuilders:
        await finish(rebuilder)
    assert await other.notice(loss.tenant) is None
    assert isinstance(await loss.admit(), Admitted)
    await other.close()


async def test_every_tenant_is_looked_at(loss: Loss) -> None:
    """L6: a process that starts rebuilds what was lost, without waiting for a client to meet it."""
    await loss.mark()
    await loss.read_to_the_end(NODES[0])
    await loss.rebuilder.notice_all()
    assert not loss.rebuilder.is_idle
    await finish(loss.rebuilder)
    assert isinstance(await loss.admit(), Admitted)


async def test_tenant_in_the_making_is_not_touched(loss: Loss) -> None:
    """L6: what Redis knows ahead of Postgres is not lost, and what neither knows is not made up."""
    unknown = uuid4()
    assert await loss.rebuilder._step(unknown) is not None
    loss.pass_time(2.1)
    await loss.read_to_the_end(NODES[0])
    assert await loss.rebuilder._step(unknown) is not None
    assert await loss.session.limiter.versions(unknown, unknown) is None


async def test_failure_ends_the_attempt_alone(loss: Loss) -> None:
    """A rebuild that can't go on ends with a warning; the next one starts afresh."""
    away = Store("postgresql://postgres@127.0.0.1:9/none", role=AUTHZ_ROLE)
    await loss.mark()
    failing = Rebuilder(away, loss.session.limiter)
    failing.notice(loss.tenant)
    await finish(failing)
    assert NotDecided("lost", loss.now) == await loss.admit()
    await loss.read_to_the_end(NODES[0])
    loss.rebuilder.notice(loss.tenant)
    await finish(loss.rebuilder)
    assert isinstance(await loss.admit(), Admitted)


async def test_close_stops_what_waits(loss: Loss) -> None:
    """A process that ends leaves no rebuild behind, and another one takes it up."""
    await loss.mark()
    loss.rebuilder.notice(loss.tenant)
    await loss.rebuilder.close()
    assert loss.rebuilder.is_idle
    await loss.read_to_the_end(NODES[0])
    assert await Rebuilder(loss.store, loss.session.limiter)._step(loss.tenant) is None
    assert datetime(2026, 11, 25, tzinfo=UTC) < loss.now

"""A tenant, two authz processes, a metering and a Redis that gets lost; an oracle checks every answer."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from uuid import UUID

from attrs import define, field, frozen
from msgspec.structs import replace

from authz.limiter import keyspace
from authz.limiter.admission import Admission, Admitted, Batch, LimitReached, Lost, Reading
from authz.limiter.cluster import Cluster
from authz.limiter.limiter import Limiter
from authz.stack import embedded
from authz.types import Limits, Period
from tests.authz.limiter_model import Answer, Oracle
from tests.authz.limiter_truth import Truth
from tests.authz.limiting import DEADLINE_S, Decision, Desk, Publication, Snapshot
from tests.redis_cluster import Nodes, client

SECOND = timedelta(seconds=1)
ASK_LIVES = 60 * SECOND
"""The guard gives an Ask up after 2 s."""


@frozen
class Dump:
    """Redis at a moment, and what the oracle knew of it."""

    keys: dict[bytes, bytes]
    oracle: Oracle


@define(eq=False)
class Rebuild:
    """What a worker has read of Postgres, and how many batches of it Redis has taken."""

    snapshot: Snapshot
    process: int = 0
    sent: int = 0


@define
class World:
    """All state: `desk` is Postgres, `oracle` what Redis should hold, `truth` what runs upstream."""

    server: embedded.Server | Nodes
    desk: Desk
    oracle: Oracle
    truth: Truth
    cached: tuple[dict[UUID, Limits], dict[UUID, int]]
    mark: str = ""
    marks: list[Lost] = field(factory=list)
    rebuilds: list[Rebuild] = field(factory=list)
    unpublished: list[Publication] = field(factory=list)
    published: list[Publication] = field(factory=list)
    asks: dict[UUID, tuple[Admission, timedelta]] = field(factory=dict)

    @classmethod
    async def begin(cls, server: embedded.Server | Nodes, *limits: Limits) -> World:
        """An empty Redis, a tenant and two keys with these limits."""
        redis = client(server.url)
        await redis.flushall()
        first, second = await Limiter.connect(server.url), await Limiter.connect(server.url)
        desk = Desk(first, redis, others=(second,))
        await desk.open(*limits)
        oracle = Oracle(desk.tenant, versions=dict(desk.versions))
        return cls(server, desk, oracle, Truth(desk), (dict(desk.limits), dict(desk.versions)))

    async def close(self) -> None:
        """Every process ends."""
        await self.desk.redis.aclose()
        for limiter in (self.desk.limiter, *self.desk.others):
            await limiter.close()

    @property
    def now_us(self) -> int:
        """The time."""
        return self.desk.limiter.clock_us

    def ask(
        self,
        *,
        second: bool,
        bound_in: int,
        wanted: int,
        share: int,
        least_share: int,
        is_cached: bool,
        age_s: int = 0,
    ) -> Admission:
        """An ask by an identity that is fresh, or that a process still remembers."""
        key = self.desk.keys[second]
        ask = self.desk.ask(bound_in=bound_in, wanted=wanted, key=key, age=age_s * SECOND)
        ask = replace(
            ask,
            share=share,
            least_share=least_share,
            estimated_input=bound_in // 2,
            estimated_output=wanted // 3,
        )
        if not is_cached:
            return ask
        limits, versions = self.cached
        return replace(
            ask,
            tenant_version=versions[self.desk.tenant],
            key_version=versions[key],
            tenant_limits=limits[self.desk.tenant],
            key_limits=limits[key],
        )

    async def decide(self, ask: Admission, process: int) -> Decision:
        """Ask one of the processes, and hold its answer against the oracle and the truth."""
        expected, before = self.oracle.answers(ask, self.now_us), await self.desk.content()
        is_held = ask.request_id in self.oracle.held
        row = None if is_held else self.desk.admitted.pop(ask.request_id, None)
        decision = await self.desk.admit(ask, limiter=(self.desk.limiter, *self.desk.others)[process])
        self.asks.setdefault(ask.request_id, (ask, self.desk.passed))
        assert summary(decision) in expected
        if isinstance(decision, Admitted) and not is_held:
            assert ask.request_id not in self.oracle.tombstones, "L2: a closed id is admitted"
            assert not self.oracle.is_lost, "L6: admitted before the rebuild"
            self.oracle.admit(ask, decision, self.now_us)
            self.truth.check(ask)
            return decision
        assert before == await self.desk.content(), "L1, L2: no new admission, yet a key has changed"
        if row is not None:
            self.desk.admitted[ask.request_id] = row
        return decision

    def repeatable(self) -> list[Admission]:
        """List all asks; after a great step of the clock, those that may still be under way."""
        desk = self.desk
        return [
            ask
            for ask, passed in self.asks.values()
            if not desk.has_stepped or desk.passed - passed < ASK_LIVES
        ]

    def end(self, ids: set[UUID], share: int) -> None:
        """Requests end upstream and are billed this share of what they may use; Redis is not updated yet."""
        started = self.truth.started
        used = {id_: self.truth.reserved(id_) * share // 100 if id_ in started else 0 for id_ in ids}
        self.unpublished.append(self.desk.commit(used))

    async def settle(self, publication: Publication) -> None:
        """Update Redis, and the oracle."""
        await self.desk.publish(publication)
        for closed in publication.closed:
            self.oracle.close(closed.request_id, closed.tokens, self.now_us)
        for total in publication.totals:
            self.oracle.raise_total(total)
        self.oracle.bury(self.now_us)

    async def done(self, id_: UUID) -> None:
        """A request has ended upstream, and the node's next Ask says so."""
        self.truth.ended.add(id_)
        self.oracle.slots.pop(id_, None)
        await self.desk.limiter.free([(id_, self.desk.tenant, self.desk.admitted[id_].key)])
        await self.desk.limiter.lag_ms(id_)  # freeing waits for no answer; this one comes after it

    def change(self, scope: UUID, limits: Limits) -> None:
        """Limits change in Postgres; processes may remember the old ones."""
        self.cached = dict(self.desk.limits), dict(self.desk.versions)
        self.desk.limits[scope] = limits
        self.desk.versions[scope] += 1

    async def raise_versions(self) -> None:
        """Redis learns of the versions there are, and then, too late, of older ones."""
        for versions in (self.desk.versions, self.cached[1]):
            named = {None if scope == self.desk.tenant else scope: v for scope, v in versions.items()}
            await self.desk.limiter.raise_versions(self.desk.tenant, named)
            for scope, version in versions.items():
                self.oracle.raise_version(scope, version)

    async def save(self) -> Dump:
        """Take a snapshot of Redis."""
        redis = self.desk.redis
        keys = {key: await redis.dump(key) for key in await redis.keys()}
        return Dump(keys, copy.deepcopy(self.oracle))

    async def move(self) -> None:
        """The tenant's slot comes to another master of the cluster, where a request meets the loss."""
        assert isinstance(self.server, Nodes)
        tenant, owner = self.desk.tenant, self.server.owner(self.desk.tenant)
        before = self.desk.limiter.run(tenant)
        self.server.move(tenant, next(master for master in self.server.masters if master is not owner))
        for limiter in (self.desk.limiter, *self.desk.others):
            while limiter.run(tenant) == before:
                assert isinstance(limiter._redis, Cluster)
                await limiter._redis.refresh()
        self.lose(self.oracle)
        await self.notice()
        await self.desk.limiter.forget_past(tenant)  # the names of a run that may come again

    async def revive(self, dump: Dump) -> None:
        """Redis dies and comes back as it was, a foreign run; every process connects anew."""
        assert isinstance(self.server, embedded.Server)
        await self.close()
        self.server.kill()
        self.server.start()
        self.desk.redis = client(self.server.url)
        self.desk.limiter = await Limiter.connect(self.server.url)
        self.desk.others = (await Limiter.connect(self.server.url),)
        self.desk.pass_time()
        for key, value in dump.keys.items():
            await self.desk.redis.restore(key, 0, value, replace=True)
        self.lose(dump.oracle)

    def lose(self, oracle: Oracle) -> None:
        """From here on no request is admitted."""
        self.oracle, self.mark = oracle, ""
        self.oracle.is_lost = True
        self.oracle.held, self.oracle.slots = {}, {}  # their names are of an earlier run

    async def notice(self) -> None:
        """Look for a loss; only the first to find one leaves a mark."""
        before = await self.desk.content()
        found = await self.desk.limiter.notice(self.desk.tenant)
        assert self.oracle.is_lost is (found is not None)
        if found is None or found.mark == self.mark:
            assert before == await self.desk.content()
        if found is not None:
            self.mark = found.mark
            self.marks.append(found)

    def read(self, lost: Lost, process: int) -> None:
        """A process reads Postgres once 2 s have passed since a mark, which may be cleared by now."""
        if self.desk.now > lost.marked_at + 2 * SECOND:
            snapshot = self.desk.read(lost, ran=self.truth.running())
            self.rebuilds.append(Rebuild(snapshot, process))

    async def step(self, rebuild: Rebuild) -> None:
        """A worker sends its next batch, at last the end of the loss; it gives up where that is not due."""
        reading, batches = rebuild.snapshot.reading, rebuild.snapshot.batches
        is_due, before = self._is_due(reading), await self.desk.content()
        limiter = (self.desk.limiter, *self.desk.others)[rebuild.process]
        if rebuild.sent < len(batches):
            batch = batches[rebuild.sent]
            assert is_due is await limiter.restore(reading, batch)
        else:
            batch = Batch()
            assert is_due is await limiter.end_loss(reading)
            self.oracle.is_lost = self.oracle.is_lost and not is_due
        if is_due:
            self.oracle.restore(reading, batch, self.now_us)
            rebuild.sent += 1
        else:
            assert before == await self.desk.content()
        if not is_due or rebuild.sent > len(batches):
            self.rebuilds.remove(rebuild)

    async def rebuild(self, rebuild: Rebuild) -> None:
        """A worker does all that it has left to do."""
        while rebuild in self.rebuilds:
            await self.step(rebuild)

    def _is_due(self, reading: Reading) -> bool:
        is_young = timedelta() <= self.desk.now - reading.read_at <= 60 * SECOND
        return self.oracle.is_lost and reading.mark == self.mark and is_young

    async def come_to_rest(self) -> None:
        """L4, B3: with all published and every deadline passed, nothing is left but the ledger's totals."""
        desk = self.desk
        if self.oracle.is_lost:
            lost = await desk.limiter.notice(desk.tenant)
            assert lost is not None
            desk.now = max(desk.now, lost.marked_at)
            desk.pass_time(3 * SECOND)
            assert await desk.read(lost, ran=self.truth.running()).write(desk.limiter)
        for publication in self.unpublished:
            await desk.publish(publication)
        desk.pass_time(timedelta(days=1, seconds=DEADLINE_S + 62))
        overdue = await desk.limiter.overdue(desk.tenant, desk.now)
        assert set(self.truth.running()) <= {row.request_id for row in overdue}
        await desk.settle({row.request_id: self.truth.reserved(row.request_id) for row in overdue})
        await desk.limiter.forget_past(desk.tenant)
        left = set(await desk.redis.keys()) - {keyspace.closed(desk.tenant).encode()}
        assert {keyspace.tenant(desk.tenant).encode()} >= left
        await self._check_totals(desk.now)

    async def _check_totals(self, now: datetime) -> None:
        for (scope, period, start), total in self.desk.totals.items():
            name = keyspace.scope(None if scope == self.desk.tenant else scope)
            if period == Period.TOTAL or start > now.date() - timedelta(days=3):
                assert total.used == await self.desk.field(f"u:{name}:{keyspace.window(period, start)}")


def summary(decision: Decision) -> Answer:
    """An answer as the oracle gives it."""
    if isinstance(decision, Admitted):
        return decision.input, decision.output
    return (decision.limit if isinstance(decision, LimitReached) else decision.reason,)

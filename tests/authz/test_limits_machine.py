"""L1-L7 in any order of admissions, settlements, time and losses of Redis: an oracle, and the truth."""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from authz import keyspace
from authz.admin import embedded
from authz.admission import Admission, Admitted, Lost, Reading, Refused, Unfit
from authz.limits import Limiter
from authz.types import Limits, Period
from tests.authz.limiting import DEADLINE_S, Desk, Publication
from tests.authz.oracle import Answer, Oracle
from tests.authz.truth import Truth

SECOND = timedelta(seconds=1)
RATES = {"requests", "tokens"}


def sometimes(low: int, high: int) -> st.SearchStrategy[int | None]:
    """A limit, or none."""
    return st.none() | st.integers(low, high)


LIMITS = st.builds(
    Limits,
    requests_per_minute=sometimes(1, 9),
    tokens_per_minute=sometimes(1, 300),
    concurrency=sometimes(1, 4),
    tokens_per_day=sometimes(1, 200),
    tokens_per_month=sometimes(1, 300),
    tokens_total=sometimes(1, 400),
)
PICK = st.integers(0, 999)
MAX_EXAMPLES = 5


class Machine(RuleBasedStateMachine):
    """A tenant with two keys, two authz processes, one metering, one Redis that gets lost."""

    server: embedded.Server

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run: Any = self.runner.run
        self.mark = ""
        self.marks: list[tuple[Lost, Any]] = []
        self.readings: list[Reading] = []
        self.pending: list[Publication] = []
        self.told: list[Publication] = []
        self.asks: dict[UUID, Admission] = {}
        self.snapshot: tuple[dict[bytes, bytes], Oracle] | None = None

    # What every rule needs.

    @property
    def now_us(self) -> int:
        """The time."""
        return self.desk.limiter.clock_us

    async def connect(self) -> None:
        """Two authz processes and a way to look inside."""
        self.redis = Redis.from_url(self.server.url)
        self.limiters = [await Limiter.connect(self.server.url) for _ in range(2)]

    async def disconnect(self) -> None:
        """The opposite."""
        await self.redis.aclose()
        for limiter in self.limiters:
            await limiter.close()

    # Rules.

    @initialize(tenant=LIMITS, first=LIMITS, second=LIMITS)
    def begin(self, tenant: Limits, first: Limits, second: Limits) -> None:
        """An empty Redis, a tenant and two keys."""
        self.run(self.connect())
        self.run(self.redis.flushall())
        self.desk = Desk(self.limiters[0], self.redis, others=(self.limiters[1],))
        self.run(self.desk.open(tenant, first, second))
        self.oracle = Oracle(self.desk.tenant, versions=dict(self.desk.versions))
        self.truth = Truth(self.desk)
        self.cached = dict(self.desk.limits), dict(self.desk.versions)

    @rule(
        second=st.booleans(),
        bound_in=st.integers(0, 60),
        wanted=st.integers(0, 200),
        process=st.integers(0, 1),
        is_cached=st.booleans(),
        starts=st.booleans(),
        age_s=st.sampled_from([0, 0, 0, 30, 59, 61, -30]),
    )
    def admit(self, *, starts: bool, age_s: int, process: int, **asked: Any) -> None:
        """A new request."""
        ask = self.new_ask(age_s=age_s, **asked)
        decision = self.decide(ask, process)
        if isinstance(decision, Admitted) and starts:
            self.truth.started.add(ask.request_id)
        if isinstance(decision, Refused) and decision.limit in RATES:
            self.desk.pass_time(timedelta(microseconds=decision.wait_us))
            again = self.decide(self.new_ask(age_s=0, **asked), process)
            assert not (isinstance(again, Refused) and again.limit in RATES), "L5: the wait did not suffice"

    @precondition(lambda self: self.asks)
    @rule(pick=PICK, process=st.integers(0, 1))
    def repeat(self, pick: int, process: int) -> None:
        """A request asked for again, open or closed."""
        ids = list(self.asks)
        self.decide(self.asks[ids[pick % len(ids)]], process)

    @precondition(lambda self: self.truth.live())
    @rule(picks=st.lists(PICK, min_size=1, max_size=3), share=st.integers(0, 100), at_once=st.booleans())
    def end(self, picks: list[int], share: int, *, at_once: bool) -> None:
        """Requests end and are billed; Redis hears of it now or later."""
        live = self.truth.live()
        used = {}
        for id_ in {live[pick % len(live)] for pick in picks}:
            most = self.truth.reserved(id_)
            if not self.asks[id_].tenant_limits.has_budget and not self.asks[id_].key_limits.has_budget:
                most *= 2
            used[id_] = most * share // 100 if id_ in self.truth.started else 0
        self.pending.append(self.desk.commit(used))
        if at_once:
            self.publish(-1)

    @precondition(lambda self: self.pending)
    @rule(pick=PICK)
    def publish(self, pick: int) -> None:
        """One of the settlements waiting, in any order."""
        told = self.pending.pop(pick % len(self.pending))
        self.told.append(told)
        self.settle(told)

    @precondition(lambda self: self.told)
    @rule(pick=PICK)
    def publish_again(self, pick: int) -> None:
        """A settlement Redis has heard already."""
        self.settle(self.told[pick % len(self.told)])

    @precondition(lambda self: self.truth.live())
    @rule(pick=PICK)
    def done(self, pick: int) -> None:
        """A request has ended upstream; the node's next Ask says so."""
        live = self.truth.live()
        id_ = live[pick % len(live)]
        self.truth.ended.add(id_)
        self.oracle.slots.pop(id_, None)
        key = self.desk.admitted[id_].key
        self.run(self.desk.limiter.free([(id_, self.desk.tenant, key)]))

    @rule(seconds=st.sampled_from([0.001, 0.5, 2.1, 7, 40, 61, 121, 4000, 100_000, -0.3, -20]))
    def time(self, seconds: float) -> None:
        """Time passes, or the clock is set back a little."""
        self.desk.pass_time(timedelta(seconds=seconds))

    @rule(limits=LIMITS, scope=st.integers(0, 2), is_raised=st.booleans())
    def change(self, limits: Limits, scope: int, *, is_raised: bool) -> None:
        """Limits change in Postgres; Redis learns of the new version at once, or not yet."""
        self.cached = dict(self.desk.limits), dict(self.desk.versions)
        changed = (self.desk.tenant, *self.desk.keys)[scope]
        self.desk.limits[changed] = limits
        self.desk.versions[changed] += 1
        if is_raised:
            self.raise_versions()

    @rule()
    def raise_versions(self) -> None:
        """Redis learns of all versions, and then of old ones, too late."""
        for versions in (self.desk.versions, self.cached[1]):
            named = {None if s == self.desk.tenant else s: v for s, v in versions.items()}
            self.run(self.desk.limiter.raise_versions(self.desk.tenant, named))
            for scope, version in versions.items():
                self.oracle.raise_version(scope, version)

    @rule()
    def flush(self) -> None:
        """Redis forgets everything."""
        self.run(self.redis.flushall())
        self.lose(Oracle(self.desk.tenant))

    @rule()
    def save(self) -> None:
        """A snapshot of Redis."""
        self.snapshot = self.run(self.desk.dump()), copy.deepcopy(self.oracle)

    @precondition(lambda self: self.snapshot)
    @rule()
    def restore(self) -> None:
        """Redis dies and comes back as it was at the snapshot, a foreign run."""
        assert self.snapshot is not None
        dump, oracle = self.snapshot
        self.snapshot = None
        self.run(self.disconnect())
        self.server.kill()
        self.server.start()
        self.run(self.connect())
        self.desk.limiter, self.desk.others, self.desk.redis = (
            self.limiters[0],
            (self.limiters[1],),
            self.redis,
        )
        self.desk.pass_time()
        for key, value in dump.items():
            self.run(self.redis.restore(key, 0, value, replace=True))
        self.lose(oracle)

    @rule()
    def notice(self) -> None:
        """Somebody looks for a loss."""
        before = self.run(self.desk.dump())
        found = self.run(self.desk.limiter.notice(self.desk.tenant))
        assert self.oracle.is_lost is (found is not None)
        if found is None or found.mark == self.mark:
            assert before == self.run(self.desk.dump())
        if found is not None:
            self.mark = found.mark
            self.marks.append((found, found.marked_at))

    @precondition(lambda self: self.marks)
    @rule(pick=PICK)
    def read(self, pick: int) -> None:
        """A worker that waits for 2 s since a mark reads Postgres; the mark may be gone by now."""
        lost, marked_at = self.marks[pick % len(self.marks)]
        if self.desk.now > marked_at + 2 * SECOND:
            self.readings.append(self.desk.read(lost, ran=self.truth.running()))

    @precondition(lambda self: self.readings)
    @rule(pick=PICK)
    def rebuild(self, pick: int) -> None:
        """A worker writes what it has read, however long ago that was."""
        reading = self.readings[pick % len(self.readings)]
        is_due = (
            self.oracle.is_lost
            and reading.mark == self.mark
            and self.desk.now - reading.read_at <= 60 * SECOND
        )
        before = self.run(self.desk.dump())
        assert is_due is self.run(self.desk.limiter.rebuild(reading))
        if not is_due:
            assert before == self.run(self.desk.dump())
            return
        self.oracle.rebuild(reading, self.now_us)

    # What the rules share.

    def new_ask(self, *, second: bool, bound_in: int, wanted: int, is_cached: bool, age_s: int) -> Admission:
        """An ask by an identity that is fresh, or that a process still remembers."""
        key = self.desk.keys[second]
        ask = self.desk.ask(bound_in=bound_in, wanted=wanted, key=key, age=age_s * SECOND)
        if not is_cached:
            return ask
        limits, versions = self.cached
        return evolve(
            ask,
            tenant_version=versions[self.desk.tenant],
            key_version=versions[key],
            tenant_limits=limits[self.desk.tenant],
            key_limits=limits[key],
        )

    def decide(self, ask: Admission, process: int) -> object:
        """Ask for it, and hold the answer against the oracle and the truth."""
        expected, before = self.oracle.answers(ask, self.now_us), self.run(self.desk.dump())
        is_held = ask.request_id in self.oracle.held
        row = None if is_held else self.desk.admitted.pop(ask.request_id, None)
        decision = self.run(self.desk.admit(ask, limiter=self.limiters[process]))
        self.asks[ask.request_id] = ask
        assert said(decision) in expected
        if isinstance(decision, Admitted) and not is_held:
            assert ask.request_id not in self.oracle.tombstones, "L2: a closed id is admitted"
            assert not self.oracle.is_lost, "L6: admitted before the rebuild"
            self.oracle.admit(ask, decision, self.now_us)
            self.truth.check(ask, self.pending)
            return decision
        assert before == self.run(self.desk.dump()), "L1, L2: no new admission, yet a key has changed"
        if row is not None:
            self.desk.admitted[ask.request_id] = row
        return decision

    def settle(self, told: Publication) -> None:
        """Tell Redis and the oracle."""
        self.run(self.desk.publish(told))
        for closed in told.closed:
            self.oracle.close(closed.request_id, closed.tokens, self.now_us)
        for total in told.totals:
            self.oracle.raise_total(total)
        self.oracle.bury(self.now_us)

    def lose(self, oracle: Oracle) -> None:
        """From here on nobody is admitted."""
        self.oracle, self.mark = oracle, ""
        self.oracle.is_lost = True

    def teardown(self) -> None:
        """At rest: all is billed and told, every deadline has passed, nothing is left."""
        if not hasattr(self, "desk"):
            return
        try:
            self.run(self.come_to_rest())
        finally:
            self.run(self.disconnect())
            self.runner.close()

    async def come_to_rest(self) -> None:
        """L4, B3: no slot and no reservation is left, and Redis has the ledger's totals."""
        desk = self.desk
        if self.oracle.is_lost:
            lost = await desk.limiter.notice(desk.tenant)
            assert lost is not None
            desk.now = max(desk.now, lost.marked_at)
            desk.pass_time(3 * SECOND)
            assert await desk.limiter.rebuild(desk.read(lost, ran=self.truth.running()))
        for told in self.pending:
            await desk.publish(told)
        desk.pass_time(timedelta(seconds=DEADLINE_S + 62, days=1))
        overdue = await desk.limiter.overdue(desk.tenant, desk.now)
        assert set(self.truth.running()) <= {row.request_id for row in overdue}
        await desk.settle({row.request_id: self.truth.reserved(row.request_id) for row in overdue})
        left = {key.rpartition(b":")[2] for key in await desk.redis.keys()} - {b"closed"}
        assert {f"{{{desk.tenant}}}".encode()} >= left
        fields = await desk.redis.hkeys(keyspace.tenant(desk.tenant))
        assert not [name for name in fields if name.startswith(b"h:")]
        for (scope, period, start), total in desk.totals.items():
            name = keyspace.scope(None if scope == desk.tenant else scope)
            if period == Period.TOTAL or start > desk.now.date() - timedelta(days=3):
                assert total.used == await desk.field(f"u:{name}:{keyspace.window(period, start)}")


def said(decision: object) -> Answer:
    """An answer as the oracle gives it."""
    if isinstance(decision, Admitted):
        return decision.input, decision.output
    if isinstance(decision, Refused):
        return (decision.limit,)
    assert isinstance(decision, Unfit)
    return (decision.reason,)


@pytest.fixture(scope="module")
def server() -> Iterator[embedded.Server]:
    """A Redis that may be killed."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder, embedded.redis_server(Path(folder)) as running:
        yield running


def test_ceilings(server: embedded.Server) -> None:
    """L1, L2, L3, L4, L5, L6, L7: whatever happens, in whatever order, every answer is a right one."""

    class Case(Machine):
        pass

    Case.server = server
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Case,
        settings=settings(
            max_examples=MAX_EXAMPLES,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )

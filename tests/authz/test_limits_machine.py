"""L1-L7 in any order of admissions, settlements, time and losses of Redis."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from authz.limiter.admission import Admitted, LimitReached
from authz.stack import embedded
from authz.types import Limits
from tests.authz.limiter_model import Oracle
from tests.authz.limiter_world import Dump, World
from tests.redis_cluster import Nodes

T = TypeVar("T")

SPANS_S = [0.001, 0.5, 2.1, 7, 40, 61, 121, 4000, 100_000, -0.3, -20, -70, -130, -720]


def sometimes(high: int) -> st.SearchStrategy[int | None]:
    """A limit, or none."""
    return st.none() | st.integers(1, high)


RATES = {
    "requests_per_minute": sometimes(9),
    "tokens_per_minute": sometimes(300),
    "concurrency": sometimes(4),
}
BUDGETS = {
    "tokens_per_day": sometimes(200),
    "tokens_per_month": sometimes(300),
    "tokens_total": sometimes(400),
}
LIMITS = st.builds(Limits, **RATES) | st.builds(Limits, **RATES, **BUDGETS)
PICK = st.integers(0, 999)


class Ceilings(RuleBasedStateMachine):
    """The rules; the world checks what they lead to."""

    server: embedded.Server | Nodes
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.snapshot: Dump | None = None

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        """Do it in this machine's event loop."""
        return self.runner.run(step)

    @initialize(tenant=LIMITS, first=LIMITS, second=LIMITS)
    def begin(self, tenant: Limits, first: Limits, second: Limits) -> None:
        """An empty Redis, a tenant and two keys."""
        self.world = self.run(World.begin(self.server, tenant, first, second))

    @rule(
        second=st.booleans(),
        bound_in=st.integers(0, 60),
        wanted=st.integers(0, 200),
        share=st.sampled_from([0, 1, 2, 8]),
        least_share=st.sampled_from([1, 30]),
        process=st.integers(0, 1),
        is_cached=st.booleans(),
        starts=st.booleans(),
        age_s=st.sampled_from([0, 0, 0, 30, 59, 61, -30]),
    )
    def admit(self, *, starts: bool, age_s: int, process: int, **asked: Any) -> None:
        """A new request; one that a rate refuses waits as long as it must."""
        ask = self.world.ask(age_s=age_s, **asked)
        decision = self.run(self.world.decide(ask, process))
        if isinstance(decision, Admitted) and starts:
            self.world.truth.started.add(ask.request_id)
        if isinstance(decision, LimitReached) and decision.wait_us:
            self.world.desk.pass_time(timedelta(microseconds=decision.wait_us))
            again = self.run(self.world.decide(self.world.ask(**asked), process))
            assert not (isinstance(again, LimitReached) and again.wait_us), "L5: the wait did not suffice"

    @precondition(lambda self: self.world.repeatable())
    @rule(pick=PICK, process=st.integers(0, 1))
    def repeat(self, pick: int, process: int) -> None:
        """A request asked for again, open or closed."""
        asks = self.world.repeatable()
        self.run(self.world.decide(asks[pick % len(asks)], process))

    @precondition(lambda self: self.world.truth.live())
    @rule(picks=st.lists(PICK, min_size=1, max_size=3), share=st.integers(0, 100), is_published=st.booleans())
    def end(self, picks: list[int], share: int, *, is_published: bool) -> None:
        """Requests end and are billed; Redis is updated now or later."""
        live = self.world.truth.live()
        self.world.end({live[pick % len(live)] for pick in picks}, share)
        if is_published:
            self.publish(-1)

    @precondition(lambda self: self.world.unpublished)
    @rule(pick=PICK)
    def publish(self, pick: int) -> None:
        """One of the settlements that wait, in any order."""
        publication = self.world.unpublished.pop(pick % len(self.world.unpublished))
        self.world.published.append(publication)
        self.run(self.world.settle(publication))

    @precondition(lambda self: self.world.published)
    @rule(pick=PICK)
    def publish_again(self, pick: int) -> None:
        """Repeat a settlement that Redis has already."""
        self.run(self.world.settle(self.world.published[pick % len(self.world.published)]))

    @precondition(lambda self: self.world.truth.live())
    @rule(pick=PICK)
    def done(self, pick: int) -> None:
        """A request ends upstream; its record is still to come."""
        live = self.world.truth.live()
        self.run(self.world.done(live[pick % len(live)]))

    @rule(seconds=st.sampled_from(SPANS_S))
    def time(self, seconds: float) -> None:
        """Time passes, or the clock steps back."""
        self.world.desk.pass_time(timedelta(seconds=seconds))

    @rule(limits=LIMITS, scope=st.integers(0, 2), is_raised=st.booleans())
    def change(self, limits: Limits, scope: int, *, is_raised: bool) -> None:
        """Limits change; Redis learns of the new version now or later."""
        desk = self.world.desk
        self.world.change((desk.tenant, *desk.keys)[scope], limits)
        if is_raised:
            self.run(self.world.raise_versions())

    @rule()
    def raise_versions(self) -> None:
        """Versions are published again."""
        self.run(self.world.raise_versions())

    @rule()
    def flush(self) -> None:
        """Redis forgets everything."""
        self.run(self.world.desk.redis.flushall())
        self.world.lose(Oracle(self.world.desk.tenant))

    @rule()
    def save(self) -> None:
        """A snapshot of Redis."""
        self.snapshot = self.run(self.world.save())

    @precondition(lambda self: self.snapshot)
    @rule()
    def restore(self) -> None:
        """Redis restarts from its snapshot."""
        assert self.snapshot is not None
        self.run(self.world.revive(self.snapshot))
        self.snapshot = None

    @rule()
    def notice(self) -> None:
        """Look for a loss."""
        self.run(self.world.notice())

    @precondition(lambda self: self.world.marks)
    @rule(pick=PICK, process=st.integers(0, 1))
    def read(self, pick: int, process: int) -> None:
        """A worker that knows of a loss reads Postgres."""
        self.world.read(self.world.marks[pick % len(self.world.marks)], process)

    @precondition(lambda self: self.world.rebuilds)
    @rule(pick=PICK)
    def step(self, pick: int) -> None:
        """A worker that has read Postgres sends one batch of it; others may be at it, too."""
        self.run(self.world.step(self.world.rebuilds[pick % len(self.world.rebuilds)]))

    @precondition(lambda self: self.world.rebuilds)
    @rule(pick=PICK)
    def rebuild(self, pick: int) -> None:
        """A worker sends all the batches it has left, and ends the loss if it still may."""
        self.run(self.world.rebuild(self.world.rebuilds[pick % len(self.world.rebuilds)]))

    def teardown(self) -> None:
        """Everything comes to rest."""
        if hasattr(self, "world"):
            try:
                self.run(self.world.come_to_rest())
            finally:
                self.run(self.world.close())
        self.runner.close()


@pytest.fixture(scope="module")
def server() -> Iterator[embedded.Server]:
    """A Redis that may be killed."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder, embedded.redis_server(Path(folder)) as running:
        yield running


class CeilingsOfCluster(Ceilings):
    """The same, where slots move instead of a Redis that comes back with its snapshot."""

    @rule()
    def save(self) -> None:
        """The tenant comes to another master."""
        self.run(self.world.move())


def test_ceilings(server: embedded.Server) -> None:
    """L1, L2, L3, L4, L5, L6, L7: whatever happens, in whatever order, every answer is a right one."""
    Ceilings.server = server
    check(Ceilings, examples=40)


def test_ceilings_of_a_cluster(cluster: Nodes) -> None:
    """L1, L2, L3, L4, L5, L6, L7: and so it is on a cluster, wherever the tenant's slot is."""
    CeilingsOfCluster.server = cluster
    check(CeilingsOfCluster, examples=5)


def check(machine: type[Ceilings], *, examples: int) -> None:
    """Run so many examples of a machine."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],  # explaining traces every line, for minutes
        ),
    )

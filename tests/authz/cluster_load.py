"""Tenants of a Redis Cluster under load, through two processes of authz; each checks its admissions."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from attrs import Factory, define, evolve

from authz.errors import LimiterUnavailable
from authz.limiter.admission import Admission, Admitted, LimitReached, Lost
from authz.limiter.limiter import MARK_AGE_S, Limiter
from authz.types import TOTAL_START, Limits, OpenRequest, Period
from tests.authz.limiting import Desk, Publication
from tests.redis_cluster import Node, Nodes

BUDGET = 200
SLOTS = 6
PAUSE_S = 0.004


@define(eq=False)
class Customer:
    """A tenant with a budget and slots; `desk` is Postgres, `running` what a backend is at."""

    desk: Desk
    chance: random.Random
    running: deque[UUID] = Factory(deque)
    asked: deque[Admission] = Factory(lambda: deque(maxlen=20))
    outbox: deque[Publication] = Factory(deque)
    seen: Counter[str] = Factory(Counter)
    closed: set[UUID] = Factory(set)
    is_over: bool = False

    @property
    def owed(self) -> int:
        """What was spent, and what all that may still run holds."""
        desk = self.desk
        rows = (row for id_, row in desk.admitted.items() if id_ not in desk.ledger)
        return sum(desk.ledger.values()) + sum(row.held_input + row.held_output for row in rows)

    async def work(self) -> None:
        """Ask, run, end and publish until it is over."""
        while not self.is_over:
            await self._turn()
            await asyncio.sleep(PAUSE_S)

    async def _turn(self) -> None:
        repeats = bool(self.asked) and self.chance.random() < 0.1
        ask = self.chance.choice(self.asked) if repeats else self._ask()
        await self._decide(ask)
        if self.running and self.chance.random() < 0.7:
            self._end(self.running.popleft(), self.chance.randrange(4))
        if sum(self.desk.ledger.values()) > BUDGET // 2:
            self._credit()
        await self.publish()

    def _ask(self) -> Admission:
        self.desk.now = datetime.now(UTC)
        return self.desk.ask(key=self.chance.choice(self.desk.keys))

    async def _decide(self, ask: Admission) -> None:
        desk, id_ = self.desk, ask.request_id
        is_new, was_closed = id_ not in desk.admitted, id_ in self.closed
        try:
            decision = await desk.admit(ask, limiter=self.chance.choice((desk.limiter, *desk.others)))
        except LimiterUnavailable:
            self.seen["unavailable"] += 1
            if is_new:
                self._leave(ask)
            return
        if isinstance(decision, Admitted):
            self.seen["admitted"] += 1
            assert not was_closed, "L2: a closed id is admitted"
            if is_new:
                self.running.append(id_)
                self.asked.append(ask)
            assert self.owed <= BUDGET, "L3: the budget is overshot"
            assert len(self.running) <= SLOTS, "L4: there are no more slots"
        elif isinstance(decision, LimitReached):
            self.seen[decision.limit] += 1
        else:
            self.seen[decision.reason] += 1
            if decision.reason == "lost":
                await self._rebuild()

    def _leave(self, ask: Admission) -> None:
        """A request whose admission nobody knows of is refused, and its record settles it at 0."""
        self.desk.admitted[ask.request_id] = OpenRequest(
            request_id=ask.request_id,
            key=ask.key,
            held_input=0,
            held_output=0,
            day=self.desk.now.date(),
            month=self.desk.now.date().replace(day=1),
            deadline=self.desk.now,
        )
        self._end(ask.request_id, 0)

    def _end(self, id_: UUID, tokens: int) -> None:
        self.outbox.append(self.desk.commit({id_: tokens}))

    def _credit(self) -> None:
        """All that was spent is given back, or the load would end with the budget."""
        self.desk.ledger = dict.fromkeys(self.desk.ledger, 0)
        self.desk.totals = {
            window: evolve(total, used=0, version=total.version + 1)
            for window, total in self.desk.totals.items()
        }
        self.outbox.append(Publication((), tuple(self.desk.totals.values())))

    async def publish(self) -> None:
        """As metering does: in order of commits, and again after a failure."""
        while self.outbox:
            try:
                await self.desk.publish(self.outbox[0])
            except LimiterUnavailable:
                self.seen["unpublished"] += 1
                return
            self.closed |= {closed.request_id for closed in self.outbox.popleft().closed}

    async def _rebuild(self) -> None:
        """As a rebuilder does; all that runs has its open line, and Postgres is read in one moment."""
        desk = self.desk
        try:
            lost = await desk.limiter.notice(desk.tenant)
            if lost is None or not await self._is_safe(lost):
                return
            read_at = await desk.limiter.now(desk.tenant)
            desk.now = datetime.now(UTC)
            snapshot = desk.read(lost, ran=self.running)
            whole = evolve(snapshot, reading=evolve(snapshot.reading, read_at=read_at))
            self.seen["rebuilt"] += await whole.write(desk.limiter)
        except LimiterUnavailable:
            self.seen["unavailable"] += 1

    async def _is_safe(self, lost: Lost) -> bool:
        return await self.desk.limiter.now(self.desk.tenant) > lost.marked_at + timedelta(seconds=MARK_AGE_S)

    async def come_to_rest(self) -> None:
        """L4, B3: when all has ended and is published, nothing is held and what is used is on the bill."""
        desk = self.desk
        while self.running:
            self._end(self.running.popleft(), 1)
        while self.outbox:
            await self.publish()
        for scope in (desk.tenant, *desk.keys):
            name = "t" if scope == desk.tenant else str(scope)
            assert 0 == await desk.field(f"h:{name}:t")
            total = desk.totals.get((scope, Period.TOTAL, TOTAL_START))
            assert (total.used if total else 0) == await desk.field(f"u:{name}:t")


@asynccontextmanager
async def load(nodes: Nodes, redis: object, *, of_each: int = 3) -> AsyncIterator[dict[Node, list[Customer]]]:
    """So many tenants on each master, all at work meanwhile; at the end they come to rest."""
    processes = [await Limiter.connect(nodes.url) for _ in range(2)]
    customers: dict[Node, list[Customer]] = {}
    for master in nodes.masters:
        customers[master] = []
        for number in range(of_each):
            desk = Desk(processes[0], redis, others=(processes[1],), tenant=nodes.tenant(master))
            customers[master].append(Customer(desk, random.Random(number)))  # noqa: S311
            for limiter in processes:
                limiter.clock_us = 0
            await desk.open(Limits(tokens_total=BUDGET, concurrency=SLOTS))
    everyone = [customer for group in customers.values() for customer in group]
    async with asyncio.TaskGroup() as group:  # whoever fails ends the test
        for customer in everyone:
            group.create_task(customer.work())
        yield customers
        for customer in everyone:
            customer.is_over = True
    for customer in everyone:
        await customer.come_to_rest()
    for limiter in processes:
        await limiter.close()

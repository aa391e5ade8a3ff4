"""One tenant with two keys on a real Redis, Postgres's side of it in plain Python, the clock in our hands."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

from attrs import define, evolve, field, frozen

from authz.decision import calendar as windows
from authz.limiter import keyspace
from authz.limiter.admission import Admission, Admitted, Batch, LimitReached, Lost, NotDecided, Reading
from authz.limiter.limiter import Limiter
from authz.types import TOTAL_START, Closed, Limits, OpenRequest, Period, Total
from tests.authz.asking import uuid7

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DEADLINE_S = 30
Decision = Admitted | LimitReached | NotDecided


@frozen
class Publication:
    """The settlement that metering sends Redis after a commit."""

    closed: tuple[Closed, ...]
    totals: tuple[Total, ...]


@frozen
class Snapshot:
    """What was read of Postgres at one moment."""

    reading: Reading
    batches: tuple[Batch, ...]

    async def write(self, limiter: Limiter) -> bool:
        """Send every batch, then end the loss; False as soon as that is not due."""
        for batch in self.batches:
            if not await limiter.restore(self.reading, batch):
                return False
        return await limiter.end_loss(self.reading)


@define
class Desk:
    """Asks, commits and publishes for one tenant; `redis` is redis-py's own client, to look inside."""

    limiter: Limiter
    redis: Any
    others: tuple[Limiter, ...] = ()
    tenant: UUID = field(factory=uuid4)
    keys: tuple[UUID, UUID] = field(factory=lambda: (uuid4(), uuid4()))
    now: datetime = NOON
    limits: dict[UUID, Limits] = field(factory=dict)
    versions: dict[UUID, int] = field(factory=dict)
    passed: timedelta = timedelta()
    has_stepped: bool = False
    admitted: dict[UUID, OpenRequest] = field(factory=dict)
    ledger: dict[UUID, int] = field(factory=dict)
    totals: dict[tuple[UUID, Period, date], Total] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.pass_time()

    @property
    def key(self) -> UUID:
        """The first of the keys."""
        return self.keys[0]

    def pass_time(self, span: timedelta = timedelta()) -> None:
        """Move every limiter's clock; one that steps back takes no time."""
        self.now += span
        self.has_stepped |= span < timedelta(minutes=-1)
        self.passed += max(span, timedelta())
        for limiter in (self.limiter, *self.others):
            limiter.clock_us = (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    async def open(self, tenant: Limits = Limits(), *keys: Limits) -> None:
        """Publish the tenant and its keys with these limits."""
        self.versions = dict.fromkeys((self.tenant, *self.keys), 1)
        of_keys = (*keys, Limits(), Limits())[:2]
        self.limits = {self.tenant: tenant} | dict(zip(self.keys, of_keys, strict=True))
        await self.limiter.create(self.tenant, 1)
        await self.limiter.raise_versions(self.tenant, dict.fromkeys(self.keys, 1))

    def ask(
        self, *, bound_in: int = 10, wanted: int = 10, key: UUID | None = None, age: timedelta = timedelta()
    ) -> Admission:
        """A new request, as authz would ask for it; what is likely of it is the most that it may cost."""
        calendar, key = windows.at(self.now, "UTC"), key or self.key
        minted = (self.now - age).timestamp()
        return Admission(
            request_id=uuid7(int(minted * 1000)),
            tenant=self.tenant,
            key=key,
            tenant_version=self.versions[self.tenant],
            key_version=self.versions[key],
            tenant_limits=self.limits[self.tenant],
            key_limits=self.limits[key],
            windows=calendar.windows,
            valid_from_us=calendar.valid_from_us,
            valid_until_us=calendar.valid_until_us,
            bound_in=bound_in,
            wanted=wanted,
            share=0,
            least_share=0,
            estimated_input=bound_in,
            estimated_output=wanted,
            deadline_s=DEADLINE_S,
        )

    async def admit(self, ask: Admission | None = None, *, limiter: Limiter | None = None) -> Decision:
        """Ask the script; whatever it admits may run, and gets its open row once it does."""
        ask = ask or self.ask()
        decision = await (limiter or self.limiter).admit(ask)
        if isinstance(decision, Admitted) and ask.request_id not in self.admitted:
            self.admitted[ask.request_id] = OpenRequest(
                request_id=ask.request_id,
                key=ask.key,
                held_input=decision.input,
                held_output=decision.output,
                day=date.fromisoformat(decision.windows.day),
                month=date.fromisoformat(f"{decision.windows.month}-01"),
                deadline=self.now + timedelta(seconds=DEADLINE_S),
            )
        return decision

    async def reserve(self, *, bound_in: int = 10, wanted: int = 10, key: UUID | None = None) -> UUID:
        """Admit a request that must be admitted; returns its id."""
        ask = self.ask(bound_in=bound_in, wanted=wanted, key=key)
        decision = await self.admit(ask)
        assert isinstance(decision, Admitted), decision
        return ask.request_id

    def commit(self, used: dict[UUID, int]) -> Publication:
        """Bill requests, once each, as Postgres would; returns what Redis has to be given."""
        raised = set()
        for request_id, tokens in used.items():
            if request_id in self.ledger:
                continue
            self.ledger[request_id] = tokens
            row = self.admitted[request_id]
            starts = {Period.DAY: row.day, Period.MONTH: row.month, Period.TOTAL: TOTAL_START}
            for scope, (period, start) in product((self.tenant, row.key), starts.items()):
                window = scope, period, start
                old = self.totals.get(window, Total(scope, period, start, 0, 0))
                self.totals[window] = evolve(old, used=old.used + tokens, version=old.version + 1)
                raised.add(window)
        closed = tuple(Closed(id_, self.admitted[id_].key, tokens) for id_, tokens in used.items())
        return Publication(closed, tuple(self.totals[window] for window in sorted(raised, key=str)))

    async def publish(self, publication: Publication) -> None:
        """Publish to Redis."""
        await self.limiter.settle(self.tenant, publication.closed, publication.totals)

    async def settle(self, used: dict[UUID, int]) -> Publication:
        """Bill requests and publish them to Redis."""
        publication = self.commit(used)
        await self.publish(publication)
        return publication

    def read(self, lost: Lost, *, ran: Iterable[UUID] | None = None) -> Snapshot:
        """One snapshot of Postgres, in as many batches as there are rows; only what ran has an open row."""
        ids = self.admitted if ran is None else ran
        recent = self.now - timedelta(seconds=120)
        running = [self.admitted[id_] for id_ in ids if id_ not in self.ledger]
        closed = [id_ for id_ in self.ledger if (id_.int >> 80) / 1000 >= recent.timestamp()]
        return Snapshot(
            Reading(self.tenant, lost.mark, self.now, self.versions[self.tenant]),
            (
                *(Batch(key_versions=((key, self.versions[key]),)) for key in self.keys),
                *(Batch(totals=(total,)) for total in self.totals.values()),
                *(Batch(closed=(id_,)) for id_ in closed),
                *(Batch(open_requests=(row,)) for row in running),
            ),
        )

    async def rebuild(self) -> None:
        """Go through a whole loss of Redis."""
        lost = await self.limiter.notice(self.tenant)
        assert lost is not None
        self.pass_time(timedelta(seconds=2.1))
        assert await self.read(lost).write(self.limiter)

    async def content(self) -> dict[bytes, object]:
        """All that Redis holds; DUMP would show the order of a table, which even reading changes."""
        found: dict[bytes, object] = {}
        for key in await self.redis.keys():
            kind = await self.redis.type(key)
            if kind == b"hash":
                found[key] = await self.redis.hgetall(key)
            elif kind == b"set":
                found[key] = await self.redis.smembers(key)
            else:
                found[key] = await self.redis.zrange(key, 0, -1, withscores=True)
        return found

    async def field(self, name: str) -> int:
        """A number of the tenant's, 0 if it is not there."""
        run = self.limiter.run(self.tenant)
        key = keyspace.held(self.tenant, run) if name.startswith("h:") else keyspace.tenant(self.tenant)
        return int(float(await self.redis.hget(key, name) or 0))


def refusal(decision: object) -> tuple[str, str]:
    """Return the limit that refused, and its scope."""
    assert isinstance(decision, LimitReached), decision
    return decision.limit, decision.scope

"""Everything Redis decides: one script a request, all or nothing, idempotent by request id.

Redis holds who may come in next; what was billed is Postgres's to say. All of a tenant's keys share
a hash tag, so that each script runs on one slot of a cluster.
"""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import date, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Final
from uuid import UUID

from attrs import evolve

from authz.errors import LimiterUnavailable
from authz.limiter import keyspace, recovery, scripts, wire
from authz.limiter.admission import Batch, Lost, decision
from authz.limiter.connection import answer
from authz.limiter.masters import Masters
from authz.limiter.wire import SECOND_US
from authz.types import Period

if TYPE_CHECKING:
    from collections.abc import Sequence

    from authz.limiter.admission import Admission, Decision, Reading
    from authz.limiter.connection import Argument
    from authz.limiter.wire import Standing
    from authz.types import Closed, OpenRequest, Total, Windows

TOMBSTONE_S: Final = 120
ID_AGE_S: Final = 60
"""The distance an id may have from Redis's clock: half of a tombstone's lifetime, either way."""

READING_AGE_S: Final = 60
"""A rebuild that read Postgres longer ago than this is not written: less than a tombstone lives."""

MARK_AGE_S: Final = 2
"""A tap serves no Grant older than this, so by then every Grant of before a loss has its open line."""

OVERDUE_S: Final = 2 + 60
"""The tap's deadline starts up to 2 s after Redis's; the rest is for metering to say so."""

READS_PER_MINUTE: Final = 120
"""Of a key, apart from its limits: a list of models costs a backend nothing, and this process little."""

CLAIM_S: Final = 70
"""A signature is valid for 30 s either way, by clocks that may differ a little."""

SETTLED_AT_ONCE: Final = 200
"""Requests a script closes, and totals that it raises, at most: admissions never wait long behind one."""

KEPT: Final = timedelta(days=3)
KEPT_MONTHS: Final = timedelta(days=40)
"""Windows this far back are forgotten: time zones and late records stay well within."""


class Limiter(Masters):
    """Redis, as the rest of the program sees it. Every method raises LimiterUnavailable."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._pruned: dict[UUID, date] = {}

    async def admit(self, admission: Admission) -> Decision:
        """Admit a request under every limit of its tenant and key, or return the limit that is reached."""
        link = self._redis.of(admission.tenant)
        answer_ = await link.evaluate(
            scripts.ADMIT,
            keyspace.of_admission(admission.tenant, admission.key, link.run_id),
            self.clock_us,
            link.run_id,
            admission.question(
                id_age_us=ID_AGE_S * SECOND_US,
                lifetime_us=(admission.deadline_s + OVERDUE_S) * SECOND_US,
            ),
        )
        return decision(answer_, admission)

    async def free(self, done: Sequence[tuple[UUID, UUID, UUID]]) -> None:
        """Free the slots of requests (id, tenant, key) that have ended; what they hold stays held."""
        freed: defaultdict[tuple[UUID, UUID], list[str]] = defaultdict(list)
        for request_id, tenant, key in done:
            freed[tenant, key].append(str(request_id))
        for (tenant, key), ids in freed.items():
            with suppress(LimiterUnavailable):  # settlement frees them, too
                link = self._redis.of(tenant)
                # Sent ahead of the next admit; the answers are not needed.
                link.tell("ZREM", keyspace.slots(tenant, link.run_id), *ids)
                link.tell("ZREM", keyspace.slots(tenant, link.run_id, key), *ids)

    async def versions(self, tenant: UUID, key: UUID) -> tuple[int, int] | None:
        """Return the versions of a tenant and a key; None after a loss."""
        link = self._redis.of(tenant)
        fields = ("epoch", keyspace.version(None), keyspace.version(key))
        epoch, of_tenant, of_key = await answer(link.send("HMGET", keyspace.tenant(tenant), *fields))
        if epoch != link.run_id.encode() or of_tenant is None or of_key is None:
            return None
        return int(of_tenant), int(of_key)

    async def read(self, tenant: UUID, key: UUID) -> int:
        """Take one of the reads that a key has in a minute; return how long to wait for it, in µs."""
        keys = (keyspace.reads(tenant, key),)
        link = self._redis.of(tenant)
        return int(await link.evaluate(scripts.READ, keys, self.clock_us, READS_PER_MINUTE))

    async def claim(self, tenant: UUID, signature: str, source: str) -> bool:
        """Keep a signature for the first source that uses it; return whether that is this one."""
        link, name = self._redis.of(tenant), keyspace.signed(tenant, signature)
        kept, first = link.send("SET", name, source, "NX", "EX", CLAIM_S), link.send("GET", name)
        await answer(kept)
        return bool(await answer(first) == source.encode())

    async def standing(
        self, tenant: UUID, keys: Sequence[UUID], windows: Windows
    ) -> tuple[Standing, ...] | None:
        """Return the use of the tenant, then of each key, in these windows; None after a loss."""
        link, now_us = self._redis.of(tenant), wire.us(await self.now(tenant))
        sent = []
        for scope in (None, *keys):
            fields = ("epoch", *keyspace.standing(scope, windows))
            found = link.send("HMGET", keyspace.tenant(tenant), *fields)
            held = link.send("HMGET", keyspace.held(tenant, link.run_id), *keyspace.holding(scope, windows))
            running = link.send("ZCOUNT", keyspace.slots(tenant, link.run_id, scope), f"({now_us}", "+inf")
            sent.append((scope or tenant, found, held, running))
        answers = [
            (scope, await answer(found), await answer(held), await answer(running))
            for scope, found, held, running in sent
        ]
        if any(found[0] != link.run_id.encode() for _, found, _, _ in answers):
            return None
        return tuple(
            wire.standing(scope, found[1:], held, running=running, now_us=now_us)
            for scope, found, held, running in answers
        )

    async def totals(self, tenant: UUID, of: Sequence[Total]) -> tuple[Total, ...] | None:
        """Return Redis's totals of these windows; version -1 where there is none, None after a loss."""
        link = self._redis.of(tenant)
        fields = [f"{kind}:{name}" for name in wire.names(tenant, of) for kind in "uw"]
        epoch, *found = await answer(link.send("HMGET", keyspace.tenant(tenant), "epoch", *fields))
        if epoch != link.run_id.encode():
            return None
        pairs = zip(of, found[::2], found[1::2], strict=True)
        return tuple(evolve(total, used=int(u or 0), version=int(w or -1)) for total, u, w in pairs)

    async def overdue(self, tenant: UUID, before: datetime) -> tuple[OpenRequest, ...]:
        """Return the unsettled reservations with a deadline more than 60 s before this moment."""
        link = self._redis.of(tenant)
        found = await answer(
            link.send(
                "ZRANGEBYSCORE",
                keyspace.opened(tenant, link.run_id),
                "-inf",
                f"({wire.us(before)}",
                "WITHSCORES",
            )
        )
        ends = dict(zip(found[::2], found[1::2], strict=True))
        packed = await answer(link.send("HMGET", keyspace.held(tenant, link.run_id), *ends)) if ends else ()
        return tuple(
            wire.unpack(UUID(request_id.decode()), held, wire.moment(end) - timedelta(seconds=OVERDUE_S))
            for (request_id, end), held in zip(ends.items(), packed, strict=True)
            if held is not None
        )

    async def settle(self, tenant: UUID, closed: Sequence[Closed], totals: Sequence[Total]) -> None:
        """Close requests and raise totals, absolutely: doing it twice, or in any order, changes nothing.

        Totals rise no later than anything is released: that may refuse too much, never too little.
        """
        for start in range(SETTLED_AT_ONCE, len(totals), SETTLED_AT_ONCE):
            await self._settle(tenant, (), totals[start : start + SETTLED_AT_ONCE])
        await self._settle(tenant, closed[:SETTLED_AT_ONCE], totals[:SETTLED_AT_ONCE])
        for start in range(SETTLED_AT_ONCE, len(closed), SETTLED_AT_ONCE):
            await self._settle(tenant, closed[start : start + SETTLED_AT_ONCE], ())
        newest = max((total.start for total in totals if total.period == Period.DAY), default=date.min)
        if newest > self._pruned.get(tenant, date.min):
            self._pruned[tenant] = await self.prune(tenant, newest)

    async def _settle(self, tenant: UUID, closed: Sequence[Closed], totals: Sequence[Total]) -> None:
        link = self._redis.of(tenant)
        requests = sorted(closed, key=attrgetter("key"))  # those of a key together, in their order
        of_keys = Counter(request.key for request in requests)
        slots = (keyspace.slots(tenant, link.run_id, key) for key in of_keys)
        keys = (*keyspace.of_settlement(tenant, link.run_id), *slots)
        question = wire.settlement(
            tenant, requests, tuple(of_keys.values()), totals, tombstone_us=TOMBSTONE_S * SECOND_US
        )
        await link.evaluate(scripts.SETTLE, keys, self.clock_us, question)

    async def prune(self, tenant: UUID, newest: date) -> date:
        """Forget windows long before the newest day; returns it, or Redis's own day if that is earlier."""
        today = min(newest, (await self.now(tenant)).date())
        horizon = (today - KEPT).isoformat(), (today - KEPT_MONTHS).isoformat()[:7]
        link, keys, cursor = self._redis.of(tenant), (keyspace.tenant(tenant),), b"0"
        while True:
            cursor = await link.evaluate(
                scripts.PRUNE, keys, self.clock_us, *horizon, cursor, recovery.SCANNED
            )
            if cursor == b"0":
                return today

    async def notice(self, tenant: UUID) -> Lost | None:
        """Mark the loss of a tenant's hash, or find the mark that is there; None if nothing is lost."""
        link, keys = self._redis.of(tenant), (keyspace.tenant(tenant), keyspace.past(tenant))
        await scripts.trust(link)  # the run may have changed just now
        mark = await link.evaluate(scripts.NOTICE, keys, self.clock_us, link.run_id, secrets.token_hex(8))
        return Lost(mark[0].decode(), wire.moment(mark[1])) if mark else None

    async def restore(self, reading: Reading, batch: Batch) -> bool:
        """Write a part of what Postgres holds of a lost tenant.

        False if that is not due: the mark is another, or the reading old.
        """
        return await self._rebuild(reading, batch, is_last=False)

    async def end_loss(self, reading: Reading) -> bool:
        """Admit again, once every batch is written; False if that is not due."""
        return await self._rebuild(reading, Batch(), is_last=True)

    async def _rebuild(self, reading: Reading, batch: Batch, *, is_last: bool) -> bool:
        link, end_after_us = self._redis.of(reading.tenant), OVERDUE_S * SECOND_US
        keys, arguments = recovery.question(reading, batch, run=link.run_id, end_after_us=end_after_us)
        age_us = READING_AGE_S * SECOND_US
        about = (link.run_id, reading.mark, wire.us(reading.read_at), age_us, int(is_last))
        return bool(await link.evaluate(scripts.REBUILD, keys, self.clock_us, *about, *arguments))

    async def forget_past(self, tenant: UUID) -> None:
        """Remove what is left of earlier runs, a little at a time; nothing reads it."""
        link = self._redis.of(tenant)
        for run in await answer(link.send("SMEMBERS", keyspace.past(tenant))):
            if run.decode() != link.run_id:
                await recovery.forget(link, tenant, run.decode())
            await answer(link.send("SREM", keyspace.past(tenant), run))

    async def raise_versions(self, tenant: UUID, versions: dict[UUID | None, int]) -> None:
        """Raise the version of the tenant (None) and of keys; never lowers one."""
        arguments: list[Argument] = []
        for key, version in versions.items():
            arguments += (keyspace.version(key), version)
        keys = (keyspace.tenant(tenant),)
        await self._redis.of(tenant).evaluate(scripts.RAISE, keys, self.clock_us, *arguments)

    async def create(self, tenant: UUID, version: int) -> None:
        """Publish a tenant that is about to be committed; does nothing where there is an epoch."""
        link, keys = self._redis.of(tenant), (keyspace.tenant(tenant),)
        await link.evaluate(scripts.CREATE, keys, self.clock_us, link.run_id, version)

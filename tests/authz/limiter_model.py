"""DESIGN 2.1 once more, in plain Python and exact numbers: what each admission must answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from uuid import UUID

from attrs import define, field, frozen

from authz.limiter import keyspace
from authz.limiter.admission import Admission, Admitted, Batch, Reading
from authz.types import Limits, OpenRequest, Total

MINUTE_US = 60_000_000
AGE_US = 60_000_000
CLOSE_US = 1
"""Around the moment at which a bucket admits again, both answers are right."""

Answer = tuple[str | int, ...]


@frozen
class Held:
    """A reservation, as Redis should have it."""

    key: UUID
    input: int
    output: int
    windows: tuple[str, ...]
    admitted_us: int
    ends_us: int
    charges: dict[UUID, tuple[Fraction, Fraction]]


@define
class Bucket:
    """When a scope's rates will be full again, as of a moment."""

    at_us: int = 0
    requests: Fraction = Fraction()
    tokens: Fraction = Fraction()

    def pass_time(self, now_us: int) -> None:
        """Fill up."""
        passed = max(0, now_us - self.at_us)
        self.requests = max(Fraction(), self.requests - passed)
        self.tokens = max(Fraction(), self.tokens - passed)
        self.at_us = now_us


@define
class Oracle:
    """The state that Redis should hold of one tenant."""

    tenant: UUID
    is_lost: bool = False
    cleared_us: int = 0
    totals: dict[tuple[UUID, str], tuple[int, int]] = field(factory=dict)
    versions: dict[UUID, int] = field(factory=dict)
    tombstones: dict[UUID, int] = field(factory=dict)
    held: dict[UUID, Held] = field(factory=dict)
    slots: dict[UUID, int] = field(factory=dict)
    buckets: dict[UUID, Bucket] = field(factory=dict)

    def answers(self, ask: Admission, now_us: int) -> set[Answer]:
        """Every right answer: the reason against it, the limit that refuses, or input and output."""
        minted_us = _minted_us(ask.request_id)
        known = self.versions.get(self.tenant), self.versions.get(ask.key)
        unfit = (
            (self.is_lost, "lost"),
            (known != (ask.tenant_version, ask.key_version), "stale"),
            (ask.request_id in self.tombstones, "closed"),
            (minted_us <= self.cleared_us <= now_us + 2 * AGE_US, "late"),
            (now_us - minted_us > AGE_US, "late"),
            (minted_us - now_us > AGE_US, "late"),
        )
        for is_so, reason in unfit:
            if is_so:
                return {(reason,)}
        if ask.request_id in self.held:
            return {(self.held[ask.request_id].input, self.held[ask.request_id].output)}
        if not ask.valid_from_us <= now_us < ask.valid_until_us:
            return {("calendar",)}
        return self._measured(ask, now_us)

    def _measured(self, ask: Admission, now_us: int) -> set[Answer]:
        scopes = ((self.tenant, ask.tenant_limits), (ask.key, ask.key_limits))
        budgets = [
            (name, limit, self._used(scope, window), self._held(scope, window))
            for name, window in _windows(ask)
            for scope, limits in scopes
            if (limit := _budget(limits, name)) is not None
        ]
        reserved = ask.bound_in + ask.wanted
        if budgets:
            left = min(limit - used for _, limit, used, _ in budgets)
            reserved = min(ask.bound_in + _wanted(ask, left), left)
        least = max(1, ask.bound_in + min(1, ask.wanted))
        for name, limit, used, _ in budgets:
            if limit - used < least:
                return {(name,)}
        for name, limit, used, held in budgets:
            if used + held + reserved > limit:
                return {(f"held_{name}",)}
        for scope, limits in scopes:
            if limits.concurrency is not None and self._running(scope, now_us) >= limits.concurrency:
                return {("concurrency",)}
        return self._rated(ask, now_us, (ask.bound_in, reserved - ask.bound_in))

    def _rated(self, ask: Admission, now_us: int, admitted: tuple[int, int]) -> set[Answer]:
        waits = self._waits(ask, now_us)
        worst = max(waits.values(), default=Fraction(-MINUTE_US))
        answers: set[Answer] = set()
        if worst <= CLOSE_US:
            answers.add(admitted)
        if worst > 0:
            answers |= {(name,) for (_, name), wait in waits.items() if wait >= worst - CLOSE_US}
        return answers

    def _waits(self, ask: Admission, now_us: int) -> dict[tuple[UUID, str], Fraction]:
        """Return the wait that each rate would impose on this request; none if negative."""
        waits = {}
        for scope, limits in ((self.tenant, ask.tenant_limits), (ask.key, ask.key_limits)):
            bucket = self._bucket(scope, now_us)
            if limits.requests_per_minute is not None:
                cost = Fraction(MINUTE_US, limits.requests_per_minute)
                waits[scope, "requests"] = bucket.requests + cost - MINUTE_US
            if limits.tokens_per_minute is not None:
                waits[scope, "tokens"] = bucket.tokens + _charge(ask, limits)[0] - MINUTE_US
        return {
            (scope, name): wait + self._behind_us(scope, now_us) if wait > CLOSE_US else wait
            for (scope, name), wait in waits.items()
        }

    def _behind_us(self, scope: UUID, now_us: int) -> int:
        """Return the time for which a clock that stepped back a little stops a bucket."""
        behind_us = self.buckets.get(scope, Bucket()).at_us - now_us
        return behind_us if 0 < behind_us <= MINUTE_US else 0

    def admit(self, ask: Admission, admitted: Admitted, now_us: int) -> None:
        """Write an admission down."""
        charges = {}
        for scope, limits in ((self.tenant, ask.tenant_limits), (ask.key, ask.key_limits)):
            bucket = self._bucket(scope, now_us)
            charges[scope] = _charge(ask, limits)
            if limits.requests_per_minute is not None or limits.tokens_per_minute is not None:
                self.buckets[scope] = bucket
                bucket.tokens += charges[scope][0]
            if limits.requests_per_minute is not None:
                bucket.requests += Fraction(MINUTE_US, limits.requests_per_minute)
        ends_us = now_us + (ask.deadline_s + 62) * 1_000_000
        windows = tuple(window for _, window in _windows(ask))
        self.held[ask.request_id] = Held(
            ask.key, admitted.input, admitted.output, windows, now_us, ends_us, charges
        )
        self.slots[ask.request_id] = ends_us

    def raise_total(self, total: Total) -> None:
        """Write down what was used of a window."""
        window = total.scope, keyspace.window(total.period, total.start)
        if total.version > self.totals.get(window, (0, 0))[1]:
            self.totals[window] = total.used, total.version

    def raise_version(self, scope: UUID, version: int) -> None:
        """Write a version down."""
        self.versions[scope] = max(version, self.versions.get(scope, 0))

    def restore(self, reading: Reading, batch: Batch, now_us: int) -> None:
        """Write down what a batch of a rebuild adds; what is newer stays."""
        self.raise_version(self.tenant, reading.tenant_version)
        for key, version in batch.key_versions:
            self.raise_version(key, version)
        for total in batch.totals:
            self.raise_total(total)
        self.tombstones |= dict.fromkeys(batch.closed, now_us)
        for row in batch.open_requests:
            if row.request_id not in self.tombstones and row.request_id not in self.held:
                held = self.held[row.request_id] = _held(row)
                self.slots[row.request_id] = held.ends_us

    def close(self, request_id: UUID, tokens: int, now_us: int) -> None:
        """Write a settlement down."""
        self.tombstones[request_id] = now_us
        self.slots.pop(request_id, None)
        held = self.held.pop(request_id, None)
        if held is None:
            return
        for scope, (charged, token_us) in held.charges.items():
            if not token_us:
                continue
            bucket = self.buckets.setdefault(scope, Bucket())
            bucket.pass_time(max(now_us, bucket.at_us))
            owed = tokens * token_us - charged
            regained = max(Fraction(), charged - (now_us - held.admitted_us))
            bucket.tokens = max(Fraction(), bucket.tokens + (owed if owed > 0 else max(owed, -regained)))

    def _running(self, scope: UUID, now_us: int) -> int:
        """Return the number of a scope's slots that are taken."""
        return sum(
            1
            for id_, ends_us in self.slots.items()
            if ends_us > now_us and scope in (self.tenant, self.held[id_].key)
        )

    def bury(self, now_us: int) -> None:
        """Forget old tombstones."""
        kept = {id_: at for id_, at in self.tombstones.items() if at >= now_us - 2 * AGE_US}
        minted_us = [_minted_us(id_) for id_ in self.tombstones if id_ not in kept]
        self.tombstones, self.cleared_us = kept, max(self.cleared_us, *minted_us, 0)
        if self.cleared_us > now_us + 2 * AGE_US:
            self.cleared_us = 0

    def _bucket(self, scope: UUID, now_us: int) -> Bucket:
        known = self.buckets.get(scope, Bucket())
        if known.at_us - now_us > MINUTE_US:
            known = Bucket()
        bucket = Bucket(known.at_us, known.requests, known.tokens)
        bucket.pass_time(now_us)
        return bucket

    def _used(self, scope: UUID, window: str) -> int:
        return self.totals.get((scope, window), (0, 0))[0]

    def _held(self, scope: UUID, window: str) -> int:
        return sum(
            held.input + held.output
            for held in self.held.values()
            if window in held.windows and scope in (self.tenant, held.key)
        )


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _minted_us(id_: UUID) -> int:
    return (id_.int >> 80) * 1000


def _held(row: OpenRequest) -> Held:
    windows = ("t", f"m:{row.month:%Y-%m}", f"d:{row.day}")
    ends_us = _us(row.deadline) + 62_000_000
    return Held(row.key, row.held_input, row.held_output, windows, 0, ends_us, {})


def _windows(ask: Admission) -> tuple[tuple[str, str], ...]:
    """The name and id of each window of a request, the longest first."""
    return ("total", "t"), ("month", f"m:{ask.windows.month}"), ("day", f"d:{ask.windows.day}")


def _budget(limits: Limits, name: str) -> int | None:
    by_name = {"total": limits.tokens_total, "month": limits.tokens_per_month, "day": limits.tokens_per_day}
    return by_name[name]


def _wanted(ask: Admission, left: int) -> int:
    """Return the tokens of answer that a request wants of what its budgets have left."""
    if not ask.share:
        return ask.wanted
    leaves_room_for_its_like = left // 2 - ask.bound_in
    return min(ask.wanted, max(ask.least_share, min(left // ask.share, leaves_room_for_its_like)))


def _charge(ask: Admission, limits: Limits) -> tuple[Fraction, Fraction]:
    if limits.tokens_per_minute is None:
        return Fraction(), Fraction()
    token_us = Fraction(MINUTE_US, limits.tokens_per_minute)
    return min((ask.estimated_input + ask.estimated_output) * token_us, Fraction(MINUTE_US)), token_us

"""Answer a key's holder: what the key has used this month, and what is left of its limits.

Never anything of another key: of the tenant's limits, which all its keys share, only what is left.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, UnsetType

from authz.decision import calendar
from authz.decision.refusals import Answer, Reason, Refusal
from authz.limiter.admission import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from authz.decision.calendar import Calendar
    from authz.limiter.limiter import Limiter
    from authz.limiter.wire import Standing
    from authz.store import Store
    from authz.types import Identity, Limits

USAGE: Final = "/v1/usage"
LIMITS: Final = "/v1/limits"
PATHS: Final = frozenset({USAGE, LIMITS})

KEPT_S: Final = 3.0
"""So long an answer is given again; a page that asks more often asks no store."""

ASKING: Final = 2
"""Of the connections to Postgres, decisions must find some free."""

MOST_ROWS: Final = 500
"""A day has a row for each model."""

HEADERS: Final = {"content-type": "application/json", "cache-control": "no-store"}


class Used(msgspec.Struct, frozen=True):
    """The use of a model on a day of the tenant's zone; a request counts when a backend was asked."""

    day: date
    model: str
    requests: int
    input_tokens: int
    output_tokens: int


class Usage(msgspec.Struct, frozen=True):
    """What a key has used this month, the newest day first; `complete` unless days are left out."""

    object: str
    timezone: str
    month: str
    requests: int
    input_tokens: int
    output_tokens: int
    complete: bool
    data: list[Used]


class Limit(msgspec.Struct, frozen=True):
    """A limit of the key, or of its tenant, of which only what is left is said."""

    scope: str
    limit: str
    value: int
    left: int
    resets_at: datetime | None
    used: int | UnsetType = UNSET
    held: int | UnsetType = UNSET


class Holding(msgspec.Struct, frozen=True):
    """What a key may do: its limits and those of its tenant, and what it is restricted to."""

    object: str
    key: str
    name: str
    expires_at: datetime | None
    models: tuple[str, ...] | None
    max_output: int | None
    timezone: str
    data: list[Limit]


Question = tuple[str, "UUID", int, int]
"""A path, the key that asks, and the versions of key and tenant: a changed limit shows at once."""


class OwnUse:
    """What was answered in the last seconds; many that ask at the same time ask the stores once."""

    def __init__(self, store: Store, limiter: Limiter, *, now_s: Callable[[], float]) -> None:
        self._store = store
        self._limiter = limiter
        self._now_s = now_s
        self._asking = asyncio.Semaphore(ASKING)
        self._kept: OrderedDict[Question, tuple[float, asyncio.Task[Answer | Refusal]]] = OrderedDict()

    async def answer(self, identity: Identity, path: str, now: datetime) -> Answer | Refusal:
        """Answer a verified key. Raises LimiterUnavailable and StoreUnavailable."""
        question = (path, identity.key, identity.key_version, identity.tenant_version)
        self._forget_old()
        if question not in self._kept:
            ask = self._usage if path == USAGE else self._limits
            asking = asyncio.create_task(ask(identity, calendar.at(now, identity.timezone), now))
            asking.add_done_callback(partial(self._forget_failed, question))
            self._kept[question] = (self._now_s() + KEPT_S, asking)
        return await asyncio.shield(self._kept[question][1])  # who leaves does not take it from the others

    def _forget_old(self) -> None:
        now_s = self._now_s()
        while self._kept:
            until_s, asking = next(iter(self._kept.values()))
            if now_s < until_s or not asking.done():
                return
            self._kept.popitem(last=False)

    def _forget_failed(self, question: Question, asking: asyncio.Task[Answer | Refusal]) -> None:
        if asking.cancelled() or asking.exception() is not None or isinstance(asking.result(), Refusal):
            self._kept.pop(question, None)

    async def _usage(self, identity: Identity, of: Calendar, _: datetime) -> Answer | Refusal:
        last = date.fromisoformat(of.windows.day)
        days = [last - timedelta(days=back) for back in range(last.day)]
        async with self._asking:
            rows = await self._store.own_use(identity.tenant, identity.key, days=days, most=MOST_ROWS + 1)
        used = [Used(*row) for row in rows[:MOST_ROWS]]
        return _answer(
            Usage(
                object="usage",
                timezone=identity.timezone,
                month=of.windows.month,
                requests=sum(each.requests for each in used),
                input_tokens=sum(each.input_tokens for each in used),
                output_tokens=sum(each.output_tokens for each in used),
                complete=len(rows) <= MOST_ROWS,
                data=used,
            )
        )

    async def _limits(self, identity: Identity, of: Calendar, now: datetime) -> Answer | Refusal:
        found = await self._limiter.standing(identity.tenant, [identity.key], of.windows)
        if found is None:
            return Refusal(Reason.REBUILDING, identity)
        of_tenant, of_key = found
        shared = _limits(identity.tenant_limits, of_tenant, of, now)
        return _answer(
            Holding(
                object="limits",
                key=identity.lookup,
                name=identity.key_name,
                expires_at=identity.expires_at,
                models=identity.models,
                max_output=identity.max_output,
                timezone=identity.timezone,
                data=[
                    *_limits(identity.key_limits, of_key, of, now),
                    *(Limit("tenant", each.limit, each.value, each.left, each.resets_at) for each in shared),
                ],
            )
        )


def _answer(value: Usage | Holding) -> Answer:
    return Answer(200, HEADERS, msgspec.json.encode(value))


def _limits(limits: Limits, standing: Standing, of: Calendar, now: datetime) -> Iterator[Limit]:
    """Yield each limit there is: what is used, held by running requests and left, and when all is back."""
    for name, limit, full_in_us in (
        ("requests_per_minute", limits.requests_per_minute, standing.requests_full_in_us),
        ("tokens_per_minute", limits.tokens_per_minute, standing.tokens_full_in_us),
    ):
        if limit is not None:
            left = Rate.at(limit, full_in_us).left
            full_at = now + timedelta(microseconds=full_in_us)
            yield Limit("key", name, limit, left, full_at, used=limit - left, held=0)
    if (most := limits.concurrency) is not None:
        running = standing.running
        yield Limit("key", "concurrency", most, max(0, most - running), None, used=running, held=0)
    for name, limit, use, resets_at in (
        ("tokens_per_day", limits.tokens_per_day, standing.day, of.valid_until),
        ("tokens_per_month", limits.tokens_per_month, standing.month, of.next_month),
        ("tokens_total", limits.tokens_total, standing.total, None),
    ):
        if limit is not None:
            left = max(0, limit - use.used - use.held)
            yield Limit("key", name, limit, left, resets_at, used=use.used, held=use.held)

"""Waiting for a slot, or for tokens that running requests hold: in line and briefly.

Full slots usually turn over in milliseconds, so a short wait turns a refusal into an answer. There is one
line per scope that refused: a request that found its tenant's slots taken waits behind those of all the
tenant's keys, one that found its key's taken behind those of the key. Only the head of a line asks again,
and the heads of a tenant take turns, so that a tenant asks as often with a thousand keys as with one.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from attrs import Factory, define, frozen

from authz.limiter.admission import LimitReached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from authz.limiter.admission import Decision

    Attempt = Callable[[], Awaitable[Decision]]
    Disconnected = Callable[[], Awaitable[None]]

WAITERS: Final = 32
"""Per key; a request beyond them is refused at once."""

WAITERS_IN_ALL: Final = 256
"""Of all keys: one tenant with many keys must not take what a process can decide at a time."""

ASK_AGAIN_S: Final = 0.015
"""Slots are freed by other nodes too, and no event here reports those."""

RETRY_S: Final = ((1, 1), (3, 2))
"""Refused for less than so many seconds: try again after so many; 4 beyond."""

LONGEST_RETRY_S: Final = 4

FORGET_S: Final = 60.0
"""A key that was not refused for so long starts with the shortest retry again."""


@frozen
class _Refused:
    """Since when a key has been refused, and when it was refused last."""

    since_s: float
    last_s: float


@define(order=False)
class _Waiter:
    """A request in line; its number says how many came before it."""

    number: int
    tenant: UUID
    key: UUID
    scope: UUID
    turn: asyncio.Event = Factory(asyncio.Event)


class Queue:
    """One line of waiting requests for each tenant and each key that refused some."""

    def __init__(self, *, wait_s: float, now_s: Callable[[], float]) -> None:
        self._wait_s = wait_s
        self._now_s = now_s
        self.lines: dict[UUID, list[_Waiter]] = {}
        """The waiting requests by the tenant or the key that refused them, in the order of their coming."""
        self._scopes: dict[UUID, set[UUID]] = defaultdict(set)
        """The lines of each tenant: its own and those of its keys."""
        self._of_key: Counter[UUID] = Counter()
        self.refused: dict[UUID, _Refused] = {}
        """The keys that were refused and not admitted since."""
        self._came = 0
        self._waiting = 0

    async def decide(
        self,
        tenant: UUID,
        key: UUID,
        attempt: Attempt,
        disconnected: Disconnected,
        *,
        first: Decision | None = None,
    ) -> Decision | None:
        """Ask at once where no earlier request waits, else in turn, and again while that may help.

        `first` is the decision of a caller that has asked already. Returns the last decision, or None if
        the client has disconnected while its request was in line, which is when `disconnected` returns.
        """
        decision = first
        scope = tenant if tenant in self.lines else key
        if first is None and (scope not in self.lines or not self._has_room(key)):
            decision = await attempt()
        if decision is not None:
            scope = _scope(decision, tenant, key)
        if decision is None or (may_pass(decision) and self._has_room(key)):
            self._came += 1
            decision = await self._wait(_Waiter(self._came, tenant, key, scope), attempt, disconnected)
        if not may_pass(decision):
            self.refused.pop(key, None)
        return decision

    def _has_room(self, key: UUID) -> bool:
        return self._of_key[key] < WAITERS and self._waiting < WAITERS_IN_ALL

    async def _wait(self, waiter: _Waiter, attempt: Attempt, disconnected: Disconnected) -> Decision | None:
        self._join(waiter)
        deadline_s = self._now_s() + self._wait_s
        leaving = asyncio.ensure_future(disconnected())
        leaving.add_done_callback(lambda _: waiter.turn.set())
        try:
            while True:
                await _within(waiter.turn, min(self._pause_s(waiter), deadline_s - self._now_s()))
                waiter.turn.clear()  # before the attempt: a slot that is freed during it is not missed
                if leaving.done():
                    return None
                is_over = self._now_s() >= deadline_s
                if not is_over and not self._is_head(waiter):
                    continue
                decision = await attempt()
                if is_over or not may_pass(decision):
                    return decision
                self._move(waiter, _scope(decision, waiter.tenant, waiter.key))
        finally:
            leaving.cancel()
            self._leave(waiter)

    def _join(self, waiter: _Waiter) -> None:
        insort(self.lines.setdefault(waiter.scope, []), waiter, key=lambda other: other.number)
        self._scopes[waiter.tenant].add(waiter.scope)
        self._of_key[waiter.key] += 1
        self._waiting += 1

    def _leave(self, waiter: _Waiter) -> None:
        line = self.lines[waiter.scope]
        was_head = line[0] is waiter
        line.remove(waiter)
        self._waiting -= 1
        self._of_key[waiter.key] -= 1
        if not self._of_key[waiter.key]:
            del self._of_key[waiter.key]
        if line:
            if was_head:
                line[0].turn.set()
            return
        del self.lines[waiter.scope]
        self._scopes[waiter.tenant].discard(waiter.scope)
        if not self._scopes[waiter.tenant]:
            del self._scopes[waiter.tenant]

    def _move(self, waiter: _Waiter, scope: UUID) -> None:
        """Change the line where another scope refused this time; the place in it is by the time of coming."""
        if scope == waiter.scope:
            return
        self._leave(waiter)
        waiter.scope = scope
        self._join(waiter)

    def _is_head(self, waiter: _Waiter) -> bool:
        return self.lines[waiter.scope][0] is waiter

    def _pause_s(self, waiter: _Waiter) -> float:
        """Return how long to wait for an event: a head asks again without one, in its turn."""
        return ASK_AGAIN_S * len(self._scopes[waiter.tenant]) if self._is_head(waiter) else self._wait_s

    def freed(self, tenant: UUID, key: UUID) -> None:
        """Wake the heads of a tenant's line and of its key's, because a slot of both is free."""
        for scope in (tenant, key):
            if scope in self.lines:
                self.lines[scope][0].turn.set()

    def retry_s(self, key: UUID) -> int:
        """Return when a refused client should try again: later, the longer its key has been refused."""
        now_s = self._now_s()
        before = self.refused.get(key)
        since_s = now_s if before is None or now_s - before.last_s > FORGET_S else before.since_s
        self.refused[key] = _Refused(since_s, now_s)
        return next((retry_s for within_s, retry_s in RETRY_S if now_s - since_s < within_s), LONGEST_RETRY_S)


def may_pass(decision: Decision | None) -> bool:
    """Return whether a refusal is one that the end of running requests lifts."""
    return isinstance(decision, LimitReached) and decision.is_passing


def _scope(decision: Decision | None, tenant: UUID, key: UUID) -> UUID:
    """Return which line a refusal leads to.

    Slots are one like the other, so a tenant's are given out in order. Tokens are not: a small request
    need not wait behind a large one of another key, so for tokens each key has its own line.
    """
    if not isinstance(decision, LimitReached):
        return key
    return tenant if (decision.scope, decision.limit) == ("tenant", "concurrency") else key


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0, seconds)):
            await event.wait()
    except TimeoutError:
        return

"""Waiting for a slot, or for tokens that running requests hold: in line and briefly.

Full slots usually turn over in milliseconds, so a short wait turns a refusal into an answer. Only the
head of a key's line asks again; a later request stands behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import frozen

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


class Queue:
    """One line of waiting requests per key."""

    def __init__(self, *, wait_s: float, now_s: Callable[[], float]) -> None:
        self._wait_s = wait_s
        self._now_s = now_s
        self.lines: dict[UUID, deque[asyncio.Event]] = {}
        """The waiting requests of each key that has any, in order: a later one must not overtake them."""
        self.refused: dict[UUID, _Refused] = {}
        """The keys that were refused and not admitted since."""
        self._waiting = 0

    async def decide(self, key: UUID, attempt: Attempt, disconnected: Disconnected) -> Decision | None:
        """Ask in turn, and ask again while that may help; return the last decision.

        `disconnected` returns when the client has disconnected; a request that still waits then leaves
        the line with None.
        """
        line = self.lines.get(key, ())
        if len(line) >= WAITERS or self._waiting >= WAITERS_IN_ALL:
            decision: Decision | None = await attempt()
        else:
            decision = await self._wait(key, attempt, disconnected)
        if not may_pass(decision):
            self.admitted(key)
        return decision

    async def _wait(self, key: UUID, attempt: Attempt, disconnected: Disconnected) -> Decision | None:
        line, turn = self.lines.setdefault(key, deque()), asyncio.Event()
        line.append(turn)
        self._waiting += 1
        deadline_s = self._now_s() + self._wait_s
        leaving = asyncio.ensure_future(disconnected())
        leaving.add_done_callback(lambda _: turn.set())
        try:
            while not leaving.done():
                left_s = deadline_s - self._now_s()
                if line[0] is turn or left_s <= 0:
                    decision = await attempt()
                    if left_s <= 0 or not may_pass(decision):
                        return decision
                turn.clear()
                await _within(turn, min(ASK_AGAIN_S, left_s) if line[0] is turn else left_s)
            return None
        finally:
            leaving.cancel()
            self._leave(key, line, turn)

    def _leave(self, key: UUID, line: deque[asyncio.Event], turn: asyncio.Event) -> None:
        self._waiting -= 1
        line.remove(turn)
        if line:
            line[0].set()
        else:
            del self.lines[key]

    def freed(self, key: UUID) -> None:
        """Wake the head of a key's line, because a slot of the key is free."""
        line = self.lines.get(key)
        if line:
            line[0].set()

    def admitted(self, key: UUID) -> None:
        """Start over with the shortest retry: running requests no longer stand in this key's way."""
        self.refused.pop(key, None)

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


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0, seconds)):
            await event.wait()
    except TimeoutError:
        return

"""Waiting for a slot, or for tokens that running requests hold: in line, briefly, and not for ever.

Full slots usually turn over in milliseconds, so a short wait turns a refusal into an answer. Only the
head of a key's line asks again; whoever comes later stands behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from authz.limiter.admission import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from authz.limiter.admission import Admitted, Unfit

    Decision = Admitted | Refused | Unfit

WAITERS: Final = 32
"""Per key; whoever comes later is refused at once."""

ASK_AGAIN_S: Final = 0.015
"""Slots are freed by other nodes too, which no event here tells of."""

RETRY_S: Final = ((1, 1), (3, 2))
"""Refused for less than so many seconds: try again after so many; 4 beyond."""

LONGEST_RETRY_S: Final = 4


class Queue:
    """One line per key."""

    def __init__(self, *, wait_s: float, now_s: Callable[[], float]) -> None:
        self._wait_s = wait_s
        self._now_s = now_s
        self._lines: dict[UUID, deque[asyncio.Event]] = {}
        self._refused_since: dict[UUID, float] = {}

    async def decide(
        self, key: UUID, attempt: Callable[[], Awaitable[Decision]], gone: Callable[[], Awaitable[None]]
    ) -> Decision | None:
        """Ask, and ask again while it may help; the last answer counts.

        `gone` returns when the client has left; whoever still waits then leaves too, with None.
        """
        line = self._lines.get(key)
        if line is None or len(line) >= WAITERS:
            decision: Decision | None = await attempt()
            if line is not None or not may_pass(decision):
                return self._noted(key, decision)
        return self._noted(key, await self._wait(key, attempt, gone))

    def _noted(self, key: UUID, decision: Decision | None) -> Decision | None:
        if not may_pass(decision):
            self._refused_since.pop(key, None)
        return decision

    async def _wait(
        self, key: UUID, attempt: Callable[[], Awaitable[Decision]], gone: Callable[[], Awaitable[None]]
    ) -> Decision | None:
        line, turn = self._lines.setdefault(key, deque()), asyncio.Event()
        line.append(turn)
        give_up_s = self._now_s() + self._wait_s
        leaving = asyncio.ensure_future(gone())
        leaving.add_done_callback(lambda _: turn.set())
        try:
            while not leaving.done():
                left_s = give_up_s - self._now_s()
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
        line.remove(turn)
        if line:
            line[0].set()
        else:
            del self._lines[key]

    def freed(self, key: UUID) -> None:
        """A slot of this key is free: its head need not wait for its next turn."""
        line = self._lines.get(key)
        if line:
            line[0].set()

    def retry_s(self, key: UUID) -> int:
        """When a refused client should try again: later, the longer its key has been refused."""
        refused_s = self._now_s() - self._refused_since.setdefault(key, self._now_s())
        return next((retry_s for within_s, retry_s in RETRY_S if refused_s < within_s), LONGEST_RETRY_S)


def may_pass(decision: Decision | None) -> bool:
    """Whether a refusal is one that running requests end by themselves."""
    return isinstance(decision, Refused) and (
        decision.limit == "concurrency" or decision.limit.startswith("held_")
    )


async def _within(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(0, seconds)):
            await event.wait()
    except TimeoutError:
        return

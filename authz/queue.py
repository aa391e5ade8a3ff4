"""Waiting for a slot, or for tokens that running requests hold: in line, briefly, and not for ever.

Full slots usually turn over in milliseconds, so a short wait turns a refusal into an answer. Only the
head of a key's line asks again; whoever comes later stands behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from authz.admission import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from authz.admission import Admitted, Unfit

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

    async def decide(self, key: UUID, attempt: Callable[[], Awaitable[Decision]]) -> Decision:
        """Ask, and ask again while it may help; the last answer counts."""
        decision = await self._decide(key, attempt)
        if not _may_pass(decision):
            self._refused_since.pop(key, None)
        return decision

    async def _decide(self, key: UUID, attempt: Callable[[], Awaitable[Decision]]) -> Decision:
        line = self._lines.get(key)
        if line is None or len(line) >= WAITERS:
            decision = await attempt()
            if not _may_pass(decision) or line is not None:
                return decision
        return await self._wait(self._lines.setdefault(key, deque()), key, attempt)

    async def _wait(
        self, line: deque[asyncio.Event], key: UUID, attempt: Callable[[], Awaitable[Decision]]
    ) -> Decision:
        turn = asyncio.Event()
        line.append(turn)
        give_up_s = self._now_s() + self._wait_s
        try:
            while line[0] is not turn:
                await _within(turn, give_up_s - self._now_s())
                if self._now_s() >= give_up_s:
                    return await attempt()
            while True:
                decision = await attempt()
                left_s = give_up_s - self._now_s()
                if not _may_pass(decision) or left_s <= 0:
                    return decision
                turn.clear()
                await _within(turn, min(ASK_AGAIN_S, left_s))
        finally:
            line.remove(turn)
            if line:
                line[0].set()
            elif self._lines.get(key) is line:
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


def _may_pass(decision: Decision) -> bool:
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

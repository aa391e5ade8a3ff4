"""Waiting in line for a slot."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from attrs import Factory, define

from authz.limiter.admission import Admitted, LimitReached, NotDecided
from authz.limiter.queue import WAITERS, WAITERS_IN_ALL, Queue
from authz.types import Windows

KEY = uuid.UUID(int=1)
FULL = LimitReached("concurrency", "key", 5, 5, 0, 0, 0)
ADMITTED = Admitted(1, 1, Windows("2026-11-25", "2026-11"), None, None)


async def _stays() -> None:
    await asyncio.Event().wait()


@define
class Slots:
    """A ceiling of our own making; notes who asked."""

    free: int = 0
    asked: list[str] = Factory(list)

    def attempt(self, name: str) -> Callable[[], Awaitable[Admitted | LimitReached | NotDecided]]:
        """Return the request of the client with this name."""

        async def ask() -> Admitted | LimitReached | NotDecided:
            self.asked.append(name)
            if not self.free:
                return FULL
            self.free -= 1
            return ADMITTED

        return ask


@define
class Clock:
    """A monotonic clock that is set by hand."""

    now_s: float = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


async def _settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_free_slot_is_taken_at_once() -> None:
    """A request that need not wait does not."""
    queue, slots = Queue(wait_s=1, now_s=Clock()), Slots(free=1)
    assert ADMITTED == await queue.decide(KEY, slots.attempt("a"), _stays)
    assert ["a"] == slots.asked


@pytest.mark.parametrize("limit", ["requests", "tokens", "day", "month", "total"])
async def test_only_what_passes_by_itself_is_waited_for(limit: str) -> None:
    """A rate or an exhausted budget is refused at once: waiting in line would not help."""
    refused = LimitReached(limit, "key", 5, 5, 0, 0, 0)

    async def attempt() -> Admitted | LimitReached | NotDecided:
        return refused

    assert refused == await Queue(wait_s=1, now_s=Clock()).decide(KEY, attempt, _stays)


async def test_the_line_is_first_come_first_served() -> None:
    """Whoever came first is admitted first; only the head asks again."""
    clock, slots = Clock(), Slots()
    queue = Queue(wait_s=1, now_s=clock)
    waiting = {}
    for name in "abc":
        waiting[name] = asyncio.create_task(queue.decide(KEY, slots.attempt(name), _stays))
        await _settle()
    assert {"a"} == set(slots.asked)
    for name in "abc":
        slots.free = 1
        queue.freed(KEY)
        assert ADMITTED == await waiting[name]


async def test_a_client_that_leaves_makes_room() -> None:
    """A waiter leaves with its client, asks no more, and the next becomes head."""
    slots, left = Slots(), asyncio.Event()
    queue = Queue(wait_s=10, now_s=Clock())

    async def leaves() -> None:
        await left.wait()

    first = asyncio.create_task(queue.decide(KEY, slots.attempt("a"), leaves))
    await _settle()
    second = asyncio.create_task(queue.decide(KEY, slots.attempt("b"), _stays))
    await _settle()
    left.set()
    assert await first is None
    slots.free = 1
    queue.freed(KEY)
    assert ADMITTED == await second
    assert 1 >= slots.free


async def test_every_wait_ends() -> None:
    """After the wait the last refusal is the answer."""
    clock, slots = Clock(), Slots()
    queue = Queue(wait_s=1, now_s=clock)
    waiting = asyncio.create_task(queue.decide(KEY, slots.attempt("a"), _stays))
    await _settle()
    clock.now_s = 2
    queue.freed(KEY)
    assert FULL == await waiting


async def test_a_long_line_is_refused_at_once() -> None:
    """Beyond 32 waiters a key's next client gets its refusal without a wait."""
    slots = Slots()
    queue = Queue(wait_s=10, now_s=Clock())
    waiting = [
        asyncio.create_task(queue.decide(KEY, slots.attempt(str(number)), _stays))
        for number in range(WAITERS)
    ]
    await _settle()
    assert FULL == await queue.decide(KEY, slots.attempt("late"), _stays)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_retry_grows_while_refused() -> None:
    """A refused client is asked to wait 1 s, then 2, then 4, and 1 again once its key was admitted."""
    clock, slots = Clock(), Slots()
    queue = Queue(wait_s=0, now_s=clock)
    waits = []
    for now_s in (0, 0.5, 1, 2.9, 3, 60):
        clock.now_s = now_s
        assert FULL == await queue.decide(KEY, slots.attempt("a"), _stays)
        waits.append(queue.retry_s(KEY))
    assert [1, 1, 2, 2, 4, 4] == waits
    slots.free = 1
    assert ADMITTED == await queue.decide(KEY, slots.attempt("a"), _stays)
    assert 1 == queue.retry_s(KEY)


async def test_lines_of_other_keys_are_other_lines() -> None:
    """One key's full slots never hold up another's."""
    slots, other = Slots(), Slots(free=1)
    queue = Queue(wait_s=10, now_s=Clock())
    waiting = asyncio.create_task(queue.decide(KEY, slots.attempt("a"), _stays))
    await _settle()
    assert ADMITTED == await queue.decide(uuid.UUID(int=2), other.attempt("b"), _stays)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_unfit_requests_do_not_wait() -> None:
    """A request that can't be judged is answered at once."""
    unfit = NotDecided("lost", datetime.now(UTC))

    async def attempt() -> Admitted | LimitReached | NotDecided:
        return unfit

    assert unfit == await Queue(wait_s=1, now_s=Clock()).decide(KEY, attempt, _stays)


async def test_lines_of_many_keys_are_bounded() -> None:
    """However many keys wait, a process lets so many requests wait in all; the others are refused at once."""
    queue, slots = Queue(wait_s=60, now_s=Clock()), Slots()
    waiting = [
        asyncio.create_task(queue.decide(uuid.UUID(int=number), slots.attempt("waits"), _stays))
        for number in range(WAITERS_IN_ALL)
    ]
    await _settle()
    assert FULL == await queue.decide(uuid.UUID(int=WAITERS_IN_ALL), slots.attempt("one more"), _stays)
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    slots.free = 1
    assert ADMITTED == await queue.decide(KEY, slots.attempt("later"), _stays)

"""Waiting in line for a slot."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from attrs import Factory, define

from authz.limiter.admission import Admitted, LimitReached, NotDecided
from authz.limiter.queue import ASK_AGAIN_S, WAITERS, WAITERS_IN_ALL, Queue
from authz.types import Windows

KEY = uuid.UUID(int=1)
TENANT = uuid.UUID(int=1 << 64)
FULL = LimitReached("concurrency", "key", 5, 5, 0, 0, 0)
TENANT_FULL = LimitReached("concurrency", "tenant", 5, 5, 0, 0, 0)
ADMITTED = Admitted(1, 1, Windows("2026-11-25", "2026-11"), None, None)


async def _stays() -> None:
    await asyncio.Event().wait()


@define
class Slots:
    """A ceiling of our own making; notes who asked."""

    free: int = 0
    refusal: LimitReached = FULL
    asked: list[str] = Factory(list)

    def attempt(self, name: str) -> Callable[[], Awaitable[Admitted | LimitReached | NotDecided]]:
        """Return the request of the client with this name."""

        async def ask() -> Admitted | LimitReached | NotDecided:
            self.asked.append(name)
            if not self.free:
                return self.refusal
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
    assert ADMITTED == await queue.decide(TENANT, KEY, slots.attempt("a"), _stays)
    assert ["a"] == slots.asked


@pytest.mark.parametrize("limit", ["requests", "tokens", "day", "month", "total"])
async def test_only_what_passes_by_itself_is_waited_for(limit: str) -> None:
    """A rate or an exhausted budget is refused at once: waiting in line would not help."""
    refused = LimitReached(limit, "key", 5, 5, 0, 0, 0)

    async def attempt() -> Admitted | LimitReached | NotDecided:
        return refused

    assert refused == await Queue(wait_s=1, now_s=Clock()).decide(TENANT, KEY, attempt, _stays)


async def test_the_line_is_first_come_first_served() -> None:
    """Whoever came first is admitted first; only the head asks again."""
    clock, slots = Clock(), Slots()
    queue = Queue(wait_s=1, now_s=clock)
    waiting = {}
    for name in "abc":
        waiting[name] = asyncio.create_task(queue.decide(TENANT, KEY, slots.attempt(name), _stays))
        await _settle()
    assert {"a"} == set(slots.asked)
    for name in "abc":
        slots.free = 1
        queue.freed(TENANT, KEY)
        assert ADMITTED == await waiting[name]


async def test_a_client_that_leaves_makes_room() -> None:
    """A waiter leaves with its client, asks no more, and the next becomes head."""
    slots, left = Slots(), asyncio.Event()
    queue = Queue(wait_s=10, now_s=Clock())

    async def leaves() -> None:
        await left.wait()

    first = asyncio.create_task(queue.decide(TENANT, KEY, slots.attempt("a"), leaves))
    await _settle()
    second = asyncio.create_task(queue.decide(TENANT, KEY, slots.attempt("b"), _stays))
    await _settle()
    left.set()
    assert await first is None
    slots.free = 1
    queue.freed(TENANT, KEY)
    assert ADMITTED == await second
    assert 1 >= slots.free


async def test_every_wait_ends() -> None:
    """After the wait the last refusal is the answer."""
    clock, slots = Clock(), Slots()
    queue = Queue(wait_s=1, now_s=clock)
    waiting = asyncio.create_task(queue.decide(TENANT, KEY, slots.attempt("a"), _stays))
    await _settle()
    clock.now_s = 2
    queue.freed(TENANT, KEY)
    assert FULL == await waiting


async def test_a_long_line_is_refused_at_once() -> None:
    """Beyond 32 waiters a key's next client gets its refusal without a wait."""
    slots = Slots()
    queue = Queue(wait_s=10, now_s=Clock())
    waiting = [
        asyncio.create_task(queue.decide(TENANT, KEY, slots.attempt(str(number)), _stays))
        for number in range(WAITERS)
    ]
    await _settle()
    assert FULL == await queue.decide(TENANT, KEY, slots.attempt("late"), _stays)
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
        assert FULL == await queue.decide(TENANT, KEY, slots.attempt("a"), _stays)
        waits.append(queue.retry_s(KEY))
    assert [1, 1, 2, 2, 4, 4] == waits
    slots.free = 1
    assert ADMITTED == await queue.decide(TENANT, KEY, slots.attempt("a"), _stays)
    assert 1 == queue.retry_s(KEY)


async def test_lines_of_other_keys_are_other_lines() -> None:
    """One key's full slots never hold up another's."""
    slots, other = Slots(), Slots(free=1)
    queue = Queue(wait_s=10, now_s=Clock())
    waiting = asyncio.create_task(queue.decide(TENANT, KEY, slots.attempt("a"), _stays))
    await _settle()
    assert ADMITTED == await queue.decide(TENANT, uuid.UUID(int=2), other.attempt("b"), _stays)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_unfit_requests_do_not_wait() -> None:
    """A request that can't be judged is answered at once."""
    unfit = NotDecided("lost", datetime.now(UTC))

    async def attempt() -> Admitted | LimitReached | NotDecided:
        return unfit

    assert unfit == await Queue(wait_s=1, now_s=Clock()).decide(TENANT, KEY, attempt, _stays)


async def test_lines_of_many_keys_are_bounded() -> None:
    """However many keys wait, a process lets so many requests wait in all; the others are refused at once."""
    queue, slots = Queue(wait_s=60, now_s=Clock()), Slots()
    waiting = [
        asyncio.create_task(queue.decide(TENANT, uuid.UUID(int=number), slots.attempt("waits"), _stays))
        for number in range(WAITERS_IN_ALL)
    ]
    await _settle()
    assert FULL == await queue.decide(
        TENANT, uuid.UUID(int=WAITERS_IN_ALL), slots.attempt("one more"), _stays
    )
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    slots.free = 1
    assert ADMITTED == await queue.decide(TENANT, KEY, slots.attempt("later"), _stays)


async def test_a_tenant_asks_no_more_often_with_many_keys() -> None:
    """The heads of a tenant's lines take turns: together they ask as often as one would."""
    clock, slots = Clock(), Slots()
    queue, keys = Queue(wait_s=60, now_s=clock), 20
    waiting = [
        asyncio.create_task(queue.decide(TENANT, uuid.UUID(int=number), slots.attempt(str(number)), _stays))
        for number in range(keys)
    ]
    began = asyncio.get_running_loop().time()
    while len(slots.asked) < 3 * keys:
        await asyncio.sleep(ASK_AGAIN_S)
    took = asyncio.get_running_loop().time() - began
    assert took >= 2 * keys * ASK_AGAIN_S * 0.9, "after the first of each, one at a time"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_line_of_a_tenant_is_first_come_first_served() -> None:
    """Requests that a tenant's limit refused are admitted in the order of their coming."""
    slots = Slots(refusal=TENANT_FULL)
    queue = Queue(wait_s=60, now_s=Clock())
    waiting = {}
    for number, name in enumerate("abcd"):
        waiting[name] = asyncio.create_task(
            queue.decide(TENANT, uuid.UUID(int=number % 2), slots.attempt(name), _stays)
        )
        await _settle()
    assert {"a"} == set(slots.asked)
    for name in "abcd":
        slots.free = 1
        queue.freed(TENANT, uuid.UUID(int=7))
        assert ADMITTED == await waiting[name]


async def test_a_full_key_does_not_hold_up_its_tenant() -> None:
    """The head of a tenant's line whose own key is full waits for its key, at the place where it came."""
    slots, full, behind = Slots(refusal=TENANT_FULL), Slots(refusal=TENANT_FULL), Slots()
    queue, other = Queue(wait_s=60, now_s=Clock()), uuid.UUID(int=2)
    first = asyncio.create_task(queue.decide(TENANT, KEY, full.attempt("first"), _stays))
    await _settle()
    second = asyncio.create_task(queue.decide(TENANT, other, slots.attempt("second"), _stays))
    await _settle()
    assert [] == slots.asked
    full.refusal = FULL
    slots.free = 1
    queue.freed(TENANT, other)
    assert ADMITTED == await second
    third = asyncio.create_task(queue.decide(TENANT, KEY, behind.attempt("third"), _stays))
    await _settle()
    full.free = 1
    queue.freed(TENANT, KEY)
    assert ADMITTED == await first
    behind.free = 1
    queue.freed(TENANT, KEY)
    assert ADMITTED == await third


async def test_tokens_of_a_tenant_are_not_waited_for_in_one_line() -> None:
    """A small request passes a large one of another key that waits for more tokens than there are."""
    large, small = Slots(refusal=LimitReached("held_day", "tenant", 5, 5, 0, 0, 0)), Slots(free=1)
    queue = Queue(wait_s=60, now_s=Clock())
    waiting = asyncio.create_task(queue.decide(TENANT, KEY, large.attempt("large"), _stays))
    await _settle()
    assert ADMITTED == await queue.decide(TENANT, uuid.UUID(int=2), small.attempt("small"), _stays)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_slot_that_is_freed_during_an_attempt_is_not_missed() -> None:
    """Whatever is freed while the script answers is asked for at once, not after a pause."""
    queue, slots, asked = Queue(wait_s=60, now_s=Clock()), Slots(), list[Admitted | LimitReached]()
    others = [
        asyncio.create_task(queue.decide(TENANT, uuid.UUID(int=number), slots.attempt("waits"), _stays))
        for number in range(10, WAITERS_IN_ALL)
    ]
    await _settle()  # so many lines make a pause of seconds

    async def attempt() -> Admitted | LimitReached | NotDecided:
        asked.append(FULL if len(asked) < 2 else ADMITTED)
        if len(asked) == 2:
            queue.freed(TENANT, KEY)
        return asked[-1]

    waiting = asyncio.create_task(queue.decide(TENANT, KEY, attempt, _stays))
    await _settle()
    queue.freed(TENANT, KEY)
    await _settle()
    assert waiting.done()
    assert ADMITTED == waiting.result()
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

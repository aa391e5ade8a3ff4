"""The hand that breaks a running stack, one blow after the other."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle

import asyncpg
from attrs import Factory, define, field
from redis.asyncio import Redis

from authz.stack.embedded import redis_url
from tests.chaos.disk import Disk
from tests.chaos.load import Load
from tests.chaos.plan import Blow, Event
from tests.up.stacks import Stack

RECOVERED_WITHIN_S = 60.0
REFUSED_WHILE_FULL = 5
_POLL_S = 0.02
_KILLED = {Blow.METERING: "metering", Blow.CADDY: "caddy", Blow.FORGET: "redis"}


OLD_DAYS = 7
_GROW_OLD = """SELECT ensure_ledger_partition(day::date)
    FROM generate_series(current_date - 2 - $1::int, current_date - 3, interval '1 day') AS day
    WHERE day >= oldest_ledger_day()"""
_FORGET = "UPDATE journal_files SET updated_at = updated_at - interval '31 days' WHERE is_finished"


async def until(is_met: Callable[[], object], *, what: str) -> None:
    """Wait for a fact; raises TimeoutError that says which one did not come about."""
    give_up = time.monotonic() + RECOVERED_WITHIN_S
    while not is_met():
        if time.monotonic() > give_up:
            raise TimeoutError(what)
        await asyncio.sleep(_POLL_S)


@define
class Breaker:
    """Strikes as planned, and counts what it did."""

    stack: Stack
    disk: Disk
    load: Load
    database_url: str = field(repr=False)
    done: Counter[Blow] = Factory(Counter)
    _authz: cycle[tuple[str, ...]] = field(
        factory=lambda: cycle((("authz-0",), ("authz-1",), ("authz-0", "authz-1")))
    )
    _victims: cycle[str] = field(factory=lambda: cycle(("authz-0", "redis", "metering")))
    _held: int | None = None
    _postgres: cycle[signal.Signals] = field(factory=lambda: cycle((signal.SIGINT, signal.SIGQUIT)))

    async def follow(self, plan: Sequence[Event]) -> None:
        """Strike every blow when its time has come."""
        begun = time.monotonic()
        for event in plan:
            await asyncio.sleep(begun + event.at_s - time.monotonic())
            await self._strike(event.blow)
            self.done[event.blow] += 1

    async def _strike(self, blow: Blow) -> None:
        match blow:
            case Blow.METERING | Blow.CADDY | Blow.FORGET:
                await self._kill(_KILLED[blow])
            case Blow.AUTHZ:
                await self._kill(*next(self._authz))
            case Blow.POSTGRES:
                await self._kill("postgres", sign=next(self._postgres))
            case Blow.REDIS:
                async with Redis.from_url(redis_url(self.stack.state)) as client:
                    await client.flushall()
            case Blow.HOLD:
                self._hold(next(self._victims))
            case Blow.RELEASE:
                self._release()
            case Blow.FULL:
                await self._fill()
            case Blow.FREE:
                self.disk.free(self.supervisor)
            case Blow.AGE:
                await self._age()

    @property
    def supervisor(self) -> int:
        """The process that sees the disk as long as the stack runs."""
        pid: int = self.stack.facts()["supervisor"]["pid"]
        return pid

    async def _kill(self, *names: str, sign: signal.Signals = signal.SIGKILL) -> None:
        """Kill processes at once; the supervisor has seen it when it names another in their place."""
        pids = {name: self.stack.pid(name) for name in names}
        for pid in pids.values():
            assert pid is not None
            with suppress(ProcessLookupError):  # it may be starting again
                os.kill(pid, sign)
        for name, pid in pids.items():
            await until(partial(self._is_replaced, name, pid), what=f"a new {name}")

    def _is_replaced(self, name: str, pid: int | None) -> bool:
        return self.stack.pid(name) not in {None, pid}

    def _hold(self, name: str) -> None:
        """Let a process hang: it is there, and does not answer."""
        self._held = self.stack.pid(name)
        assert self._held is not None
        os.kill(self._held, signal.SIGSTOP)

    def _release(self) -> None:
        with suppress(ProcessLookupError):  # it may have been killed meanwhile
            os.kill(self._held or 0, signal.SIGCONT)

    async def _age(self) -> None:
        """Give the next metering days that its policy drops, and marks of files that it forgets."""
        async with asyncio.timeout(RECOVERED_WITHIN_S):
            while not await self._has_aged():
                await asyncio.sleep(_POLL_S)

    async def _has_aged(self) -> bool:
        try:
            ledger = await asyncpg.connect(self.database_url)
        except (OSError, asyncpg.PostgresError):  # it may be starting again
            return False
        await ledger.execute(_GROW_OLD, OLD_DAYS)
        await ledger.execute(_FORGET)
        await ledger.close()
        return True

    async def _fill(self) -> None:
        """Fill the disk until clients are refused for it."""
        before = self.load.refused(503)
        self.disk.fill(self.supervisor)
        await until(
            lambda: self.load.refused(503) >= before + REFUSED_WHILE_FULL, what="refusals on a full disk"
        )

"""Children are started, restarted at once when they die, and stopped in the opposite order.

One that keeps dying ends them all. This is not honcho, which ends everything at the first death,
knows no readiness and leaves the children behind when it is killed itself.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from attrs import define, evolve, field

from authz.errors import CommandError
from authz.stack.checklist import News, Stage
from authz.stack.facts import Facts, Process, observe, save_facts
from authz.stack.program import Layer, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from authz.stack.folder import StateFolder
    from authz.stack.program import Program

MAX_DEATHS: Final = 5
DEATHS_WINDOW_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.25
"""Before the second restart, doubled for each further one; the first comes at once."""


@define
class Deaths:
    """When a child died; what dies five times within 30 s cannot be healed by a restart."""

    _moments: deque[float] = field(factory=lambda: deque(maxlen=MAX_DEATHS))

    def pause_s(self, now: float) -> float | None:
        """Note a death; how long to wait before the restart, None when there is none."""
        self._moments.append(now)
        recent = sum(now - moment < DEATHS_WINDOW_S for moment in self._moments)
        if recent >= MAX_DEATHS:
            return None
        return 0.0 if recent == 1 else _FIRST_PAUSE_S * 2 ** (recent - 2)


@define
class Child:
    """A program and the process that runs it now."""

    program: Program
    process: asyncio.subprocess.Process
    deaths: Deaths = field(factory=Deaths)
    is_replaced: bool = False
    """Its end was asked for, so it is no death."""


@define
class Supervisor:
    """The owner of a stack's processes, all of which it writes down in the state folder."""

    folder: StateFolder
    facts: Facts
    report: Callable[[News], None]
    tasks: asyncio.TaskGroup
    _children: list[Child] = field(factory=list)

    async def start(self, program: Program) -> None:
        """Start a child and look after it from now on."""
        child = Child(program, await _spawn(program))
        self._children.append(child)
        self._write_down()
        self.tasks.create_task(self._look_after(child))

    def announce(self, facts: Facts) -> None:
        """Write changed facts down."""
        self.facts = facts
        save_facts(self.folder, facts)

    async def replace(self, name: str) -> None:
        """End the child of this name in order; its successor starts the program as it is now."""
        for child in self._children:
            if child.program.name == name and child.process.returncode is None:
                child.is_replaced = True
                await _end(child)

    async def stop(self) -> None:
        """End the children layer by layer from the top, each by its own signal, then by force."""
        for layer in sorted(Layer, reverse=True):
            await asyncio.gather(*(_end(child) for child in self._children if child.program.layer == layer))
        self._write_down()

    async def _look_after(self, child: Child) -> None:
        name = child.program.name
        while True:
            code = await child.process.wait()
            if child.is_replaced:
                child.is_replaced = False
                self.report(News(Stage.RESTARTED, name, "replaced"))
                await self._restart(child)
                continue
            words = " | ".join(last_lines(child.program.log)) or "it said nothing"
            pause_s = child.deaths.pause_s(time.monotonic())
            if pause_s is None:
                message = f"{name} keeps dying ({_cause(code)}), so the stack ends: {words}"
                raise CommandError(message)
            self.report(News(Stage.RESTARTED, name, f"{_cause(code)}, restarted: {words}"))
            await asyncio.sleep(pause_s)
            await self._restart(child)

    async def _restart(self, child: Child) -> None:
        child.process = await _spawn(child.program)
        self._write_down()

    def _write_down(self) -> None:
        seen = (observe(child.program.name, child.process.pid) for child in self._children)
        processes = tuple(process for process in seen if process is not None)
        self.announce(evolve(self.facts, processes=processes))


def myself() -> Process:
    """Return the supervisor's own process."""
    process = observe("supervisor", os.getpid())
    if process is None:  # pragma: no cover - /proc is missing
        message = "There is no /proc: mount it, or use Linux, the one system that `up` supports."
        raise CommandError(message)
    return process


async def _spawn(program: Program) -> asyncio.subprocess.Process:
    with program.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *program.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=program.environ,
            start_new_session=True,
        )


async def _end(child: Child) -> None:
    if child.process.returncode is not None:
        return
    child.process.send_signal(child.program.stop_signal)
    try:
        async with asyncio.timeout(child.program.grace_s):
            await child.process.wait()
    except TimeoutError:
        child.process.kill()
        await child.process.wait()


def _cause(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

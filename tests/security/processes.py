"""A stack's own processes, halted and killed: how it looks when a part of it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.up.stacks import Stack, until


@contextmanager
def halted(stack: Stack, *names: str) -> Iterator[None]:
    """Halt processes with all their children: they hold their connections and answer nothing."""
    pids: list[int] = []
    try:
        for name in names:
            for pid in _family(_pid(stack, name)):
                pids.append(pid)
                _signal(pid, signal.SIGSTOP)
        # A child of Postgres may have been about to end anyway.
        until(lambda: {_state(pid) for pid in pids} <= {"T", "Z", ""})
        yield
    finally:
        for pid in pids:
            _signal(pid, signal.SIGCONT)


@contextmanager
def killed(stack: Stack, *names: str) -> Iterator[None]:
    """Kill processes while their supervisor is halted, so that they are not started again."""
    supervisor = int(stack.facts()["supervisor"]["pid"])
    pids = [_pid(stack, name) for name in names]
    try:
        os.kill(supervisor, signal.SIGSTOP)
        until(lambda: _state(supervisor) == "T")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: {_state(pid) for pid in pids} == {"Z"})
        yield
    finally:
        os.kill(supervisor, signal.SIGCONT)


def _pid(stack: Stack, name: str) -> int:
    pid = stack.pid(name)
    assert pid is not None
    return pid


def _family(pid: int) -> Iterator[int]:
    """A process, then those that it has begotten by the time its halt has been asked for."""
    yield pid
    others = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    for child in (other for other in others if _stat(other)[1:2] == [str(pid)]):
        yield from _family(child)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _state(pid: int) -> str:
    """The state: R and S run, T is halted, Z is dead and not reaped; empty if there is none."""
    return "".join(_stat(pid)[:1])


def _stat(pid: int) -> list[str]:
    """State, parent and more; empty if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []

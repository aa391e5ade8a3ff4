"""Record what runs by process id and start time, so that no other process is ever taken for it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

import msgspec
from attrs import field, frozen

from authz.errors import CommandError
from authz.stack import machine
from authz.stack.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authz.stack.folder import StateFolder

_POLL_S: Final = 0.02


@frozen
class Process:
    """One process of this machine; `started` is what its system calls its start."""

    name: str
    pid: int
    started: int


@frozen(kw_only=True)
class Facts:
    """The stack as its supervisor last wrote it down (`state.json`)."""

    url: str
    supervisor: Process
    is_ready: bool = False
    tenant: str | None = None
    model: str | None = None
    processes: tuple[Process, ...] = field(default=())


def save_facts(folder: StateFolder, facts: Facts) -> None:
    """Write the facts down for `status` and `down`."""
    write_atomically(folder.facts, msgspec.json.encode(facts))


def load_facts(folder: StateFolder) -> Facts | None:
    """Load the facts of the last stack in this folder, running or not."""
    try:
        return msgspec.json.decode(folder.facts.read_bytes(), type=Facts)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        message = f"{folder.facts} is damaged ({error}): end its processes by hand, then delete it."
        raise CommandError(message) from error


def observe(name: str, pid: int) -> Process | None:
    """Return this process as it is now, or None when it has ended."""
    started = machine.started(pid)
    return None if started is None else Process(name, pid, started)


def is_alive(process: Process) -> bool:
    """Return whether exactly this process still runs."""
    return observe(process.name, process.pid) == process


def end(processes: Iterable[Process], *, timeout_s: float) -> None:
    """End these processes, by force after the time out; others with their numbers are spared."""
    left = [process for process in processes if is_alive(process)]
    _signal(left, signal.SIGTERM)
    if not wait_ended(left, timeout_s=timeout_s):
        _signal(left, signal.SIGKILL)
        wait_ended(left, timeout_s=timeout_s)


def wait_ended(processes: Iterable[Process], *, timeout_s: float) -> bool:
    """Return whether all of these have ended by then."""
    left = list(processes)
    give_up = time.monotonic() + timeout_s
    while left := [process for process in left if is_alive(process)]:
        if time.monotonic() > give_up:
            return False
        time.sleep(_POLL_S)
    return True


def _signal(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        if is_alive(process):
            os.kill(process.pid, number)

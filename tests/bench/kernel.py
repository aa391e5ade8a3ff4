"""What the kernel knows of running programs: CPU time and memory, with all processes that they started."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


@frozen
class Cpu:
    """CPU time in seconds."""

    user_s: float = 0.0
    system_s: float = 0.0

    @property
    def all_s(self) -> float:
        """Both together."""
        return self.user_s + self.system_s

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.user_s + other.user_s, self.system_s + other.system_s)

    def __sub__(self, other: Cpu) -> Cpu:
        return Cpu(self.user_s - other.user_s, self.system_s - other.system_s)


def cpu(roots: Mapping[str, int]) -> dict[str, Cpu]:
    """Return what each program has computed, its ended children included."""
    stats = _stats()
    return {
        name: sum((_computed(stats[pid]) for pid in _tree(root, stats) if pid in stats), Cpu())
        for name, root in roots.items()
    }


def memory_bytes(roots: Mapping[str, int]) -> int:
    """Return the memory of all programs together; what processes share counts once (PSS)."""
    stats = _stats()
    return sum(_pss(pid) for root in roots.values() for pid in _tree(root, stats))


def machine() -> str:
    """Return the kind of this machine: its processor and how many cores of it may be used."""
    lines = (_PROC / "cpuinfo").read_text().splitlines()
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return f"{len(os.sched_getaffinity(0))} cores, {next(names, os.uname().machine)}"


def _stats() -> dict[int, list[str]]:
    """Read the fields of each process after its name (proc(5)): the first is its state."""
    found = {}
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = path.read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended
            continue
    return found


def _tree(root: int, stats: Mapping[int, list[str]]) -> Iterator[int]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, fields in stats.items():
        children[int(fields[1])].append(pid)
    waiting = [root]
    while waiting:
        yield (pid := waiting.pop())
        waiting += children[pid]


def _computed(fields: list[str]) -> Cpu:
    user, system, user_of_ended, system_of_ended = (int(each) / TICKS_PER_S for each in fields[11:15])
    return Cpu(user + user_of_ended, system + system_of_ended)


def _pss(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

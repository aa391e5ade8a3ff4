"""What is measured of each contender, in blocks that take turns."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final

from attrs import define, field, frozen

from authz.errors import CommandError
from tests.bench import kernel
from tests.bench.contenders import Contender
from tests.bench.kernel import Cpu
from tests.bench.load import Load, Result, Workload, finished

SETTLE_S: Final = 1.0
"""After the last answer of a block: what is still settled then counts for it."""

CROWD: Final = "crowd"
_CROWD_EVERY_S: Final = 0.25
_CROWD_RAMP_S: Final = 2.0


@frozen
class Plan:
    """How long and how much."""

    blocks: int = 12
    seconds: float = 1.5
    tokens: int = 400
    """Of an answer in the measurements of streams."""
    crowd: int = 2000
    """Streams that are open at once."""
    only: tuple[str, ...] = ()
    """Names of workloads; without any all are measured, and the crowd."""

    @property
    def workloads(self) -> dict[str, Workload]:
        """What is asked for in every block, by the name of the figures that come of it."""
        length, tokens = f"{self.seconds}s", self.tokens
        known = {
            "alone": Workload(1, length=length),
            "16": Workload(16, length=length),
            "64": Workload(64, length=length),
            "first": Workload(1, length=length, stream=True),
            "first_gaps": Workload(1, length=length, stream=True, gap="15ms"),
            # About as fast as the machine can with all processes on it, less a margin.
            "stream_1": Workload(1, tokens, length=length, stream=True, every="1ms"),
            "stream_64": Workload(64, tokens, each=1, stream=True, every="10ms", ramp="100ms"),
            "stream_512": Workload(512, tokens, each=1, stream=True, every="50ms", ramp="1s"),
        }
        return {name: known[name] for name in self.only or known}


@frozen
class Sample:
    """One workload of one contender in one block."""

    result: Result
    cpu: dict[str, Cpu]

    @property
    def cpu_s(self) -> float:
        """The CPU time of all its programs."""
        return sum(each.all_s for each in self.cpu.values())


@frozen
class Crowd:
    """Many streams at once: how many ended whole, and the memory before and in the middle of them."""

    result: Result
    idle_bytes: int
    busy_bytes: int


@define
class Measurements:
    """All that was measured: samples by workload, then by contender, one of each block."""

    samples: dict[str, dict[str, list[Sample]]] = field(factory=dict)
    crowds: dict[str, Crowd] = field(factory=dict)


def measure(load: Load, contenders: Sequence[Contender], plan: Plan) -> Measurements:
    """Measure all contenders in turn. Raises CommandError if one of them fails to answer."""
    found = Measurements()
    for each in contenders:
        load.run(each.target, Workload(16, length=f"{plan.seconds}s"))  # warms up
    for each in contenders if not plan.only else ():
        _note(f"{plan.crowd:,} streams: {each.name}")
        found.crowds[each.name] = crowd(load, each, plan.crowd)
    for block in range(plan.blocks):
        # Who is first takes turns, too.
        turn = contenders if block % 2 == 0 else contenders[::-1]
        for name, workload in plan.workloads.items():
            for each in turn:
                _note(f"block {block + 1} of {plan.blocks}: {name}, {each.name}")
                by_name = found.samples.setdefault(name, {})
                by_name.setdefault(each.name, []).append(sample(load, each, workload))
    _note("")
    return found


def sample(load: Load, contender: Contender, workload: Workload, *, settle_s: float = SETTLE_S) -> Sample:
    """Measure one workload, and wait until it is settled."""
    before = kernel.cpu(contender.processes)
    result = load.run(contender.target, workload)
    time.sleep(settle_s if before else 0)
    after = kernel.cpu(contender.processes)
    if result.failed:
        message = f"{contender.name} failed {result.failed} times, so nothing is measured: {result.failure}"
        raise CommandError(message)
    return Sample(result, {name: after[name] - before[name] for name in after})


def crowd(load: Load, contender: Contender, streams: int) -> Crowd:
    """Keep so many streams open at once, and weigh the contender in the middle."""
    tokens = round(4 * _CROWD_RAMP_S / _CROWD_EVERY_S)
    workload = Workload(
        streams,
        tokens,
        each=1,
        every=f"{_CROWD_EVERY_S}s",
        ramp=f"{_CROWD_RAMP_S}s",
        stream=True,
    )
    idle = kernel.memory_bytes(contender.processes)
    process = load.begin(contender.target, workload)
    time.sleep(2 * _CROWD_RAMP_S)
    busy = kernel.memory_bytes(contender.processes)
    return Crowd(finished(process), idle, busy)


def _note(progress: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{progress}")

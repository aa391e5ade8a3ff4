"""`just soak`: the whole gateway under mixed traffic for a while, and what its processes take of the machine.

The real Ollama answers streams and single answers; clients hang up, ask for what there is not, run into
limits and use wrong keys; Caddy is reloaded every minute. Exits 1 where memory, open files or connections
grow by more than the limit beside them, a request fails, or the bill is another than Ollama's.

python -m tests.chaos.soak [--minutes 20] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from statistics import linear_regression

from attrs import define, field
from redis.asyncio import Redis

from authz.types import Limits
from tests.chaos.questions import OFTEN
from tests.chaos.rolling import LIMITS, Rolling, rolling
from tests.chaos.world import real
from tests.gateway import running

SAMPLE_EVERY_S = 5.0
RELOAD_EVERY_S = 60.0
WARM_UP = 1 / 3
"""Of the time: pools, caches and heaps grow to their size at first."""

MEMORY_KIB, COUNT = 512.0, 0.5
"""The greatest growth in a minute: of memory, and of open files or connections."""

_REFUSED = Limits(requests_per_minute=20)
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"


@define
class Series:
    """One figure over time, in minutes."""

    limit: float
    minutes: list[float] = field(factory=list)
    values: list[float] = field(factory=list)

    def add(self, minute: float, value: float) -> None:
        """Take a sample."""
        self.minutes.append(minute)
        self.values.append(value)

    @property
    def slope(self) -> float:
        """Return the growth in a minute since the warm-up, by least squares."""
        first = int(len(self.values) * WARM_UP)
        return linear_regression(self.minutes[first:], self.values[first:]).slope

    @property
    def is_flat(self) -> bool:
        """Return whether it grows by no more than its limit."""
        return self.slope <= self.limit

    def row(self, name: str) -> str:
        """One line of the table."""
        first, last, most = self.values[0], self.values[-1], max(self.values)
        mark = "ok" if self.is_flat else "GROWS"
        return (
            f"{name:<28}{first:>10.0f}{last:>10.0f}{most:>10.0f}{self.slope:>12.2f}{self.limit:>9.1f}  {mark}"
        )


@define
class Watch:
    """Everything that must not grow."""

    world: Rolling
    begun_s: float = field(factory=time.monotonic)
    series: dict[str, Series] = field(factory=dict)

    async def go_on(self) -> None:
        """Take samples until cancelled."""
        async with Redis.from_url(self.world.settings.redis_url) as redis:
            while True:
                await self._sample(redis)
                await asyncio.sleep(SAMPLE_EVERY_S)

    async def _sample(self, redis: Redis) -> None:
        for process in self.world.gateway.stack.facts()["processes"]:
            name, pid = process["name"], process["pid"]
            if name != "postgres":  # its memory is that of its connections, which are counted
                self._add(f"{name}: memory (KiB)", _memory_kib(pid), MEMORY_KIB)
            self._add(f"{name}: open files", _open_files(pid), COUNT)
        used = (await redis.info("memory"))["used_memory"] / 1024
        self._add("redis: data (KiB)", used, MEMORY_KIB)
        self._add("redis: clients", (await redis.info("clients"))["connected_clients"], COUNT)
        connections = await self.world.ledger.fetchval(_CONNECTIONS)
        self._add("postgres: connections", connections, COUNT)

    def _add(self, name: str, value: float, limit: float) -> None:
        minute = (time.monotonic() - self.begun_s) / 60
        self.series.setdefault(name, Series(limit)).add(minute, value)


def _memory_kib(pid: int) -> int:
    """Return what a process has for itself, without pages of files: others may begin or end to share them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def _open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def _use(world: Rolling, minutes: float) -> None:
    """Reload Caddy now and then, until the time is over."""
    end = time.monotonic() + 60 * minutes
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, RELOAD_EVERY_S))
        os.kill(world.pid("caddy"), signal.SIGUSR1)


async def soak(world: Rolling, *, minutes: float) -> bool:
    """Soak a gateway, and print what was seen; returns whether all is right."""
    for load in world.clients.loads:
        await load.learn()
    watch = Watch(world)
    watching = asyncio.create_task(watch.go_on())
    await world.clients.ask_during(lambda: _use(world, minutes))
    watching.cancel()
    table = await world.table()
    for figure in table.figures:
        sys.stdout.write(f"{figure}\n")
    for fault in world.clients.faults()[:5]:
        sys.stdout.write(f"{fault}\n")
    sys.stdout.write(f"\n{'':<28}{'first':>10}{'last':>10}{'most':>10}{'per minute':>12}{'limit':>9}\n")
    for name, series in sorted(watch.series.items()):
        sys.stdout.write(f"{series.row(name)}\n")
    return table.is_right and all(series.is_flat for series in watch.series.values())


async def _run(minutes: float, seed: int) -> bool:
    with real() as behind, running(behind.url, OLLAMA_URL=behind.url) as gateway:
        limits = (*LIMITS, _REFUSED)
        async with rolling(gateway, behind, seed=seed, often=OFTEN, limits=limits, pause_s=1.0) as world:
            return await soak(world, minutes=minutes)


def main() -> int:
    """Read the arguments, run, and say whether all was right."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same questions")
    arguments = parser.parse_args()
    is_right = asyncio.run(_run(arguments.minutes, arguments.seed))
    sys.stdout.write(f"{arguments.minutes:g} minutes: {'all right' if is_right else 'WRONG'}\n")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())

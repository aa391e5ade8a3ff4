"""`just chaos`: the whole gateway under load while every part of it dies, and the bill afterwards.

Tenants with and without ceilings ask the real stack for text, thinking, tool calls and several tokens a
frame; the real Ollama behind it keeps a tally. B1, B2: what ended is billed as that tally has it, once. B3:
ledger, windows and Redis agree. B4: no line is lost unnoticed. L3: no budget is exceeded. L4: slots return
to 0. Exits 1 on any difference.

python -m tests.chaos.chaos [--minutes 7] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence

import asyncpg
import httpx
from attrs import frozen
from redis.asyncio import Redis

from tests.chaos.aftermath import Aftermath
from tests.chaos.book_compare import Wrong
from tests.chaos.book_tables import Table
from tests.chaos.breaking import Breaker
from tests.chaos.evidence import Keeper
from tests.chaos.load import ANSWERED_WITHIN_S, Load
from tests.chaos.plan import WHOLE, Blow, Event, planned
from tests.chaos.world import World, populate, real, running, session, strange_keys

ROLL = "256KiB"
SHOWN = 5


@frozen
class Run:
    """One run over a stack that is up, before it is judged."""

    load: Load
    breaker: Breaker
    keeper: Keeper

    async def rage(self, plan: Sequence[Event]) -> None:
        """Let everything happen; afterwards every tenant has been seen again."""
        await self.load.learn()
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(self.load.blow())
            keeping = tasks.create_task(self.keeper.go_on())
            await self.breaker.follow(plan)
            self.load.is_over = True
            await asking
            keeping.cancel()
        await self.load.touch()


async def chaos(world: World, *, seed: int, span_s: float, blows: Mapping[Blow, int]) -> Aftermath:
    """Break a stack for so long, and say what is left."""
    clients = httpx.AsyncClient(base_url=world.url, timeout=ANSWERED_WITHIN_S)
    async with session(world.settings) as operator, clients as client:
        load = Load(seed, await populate(operator, world.behind.models), strange_keys(world.settings), client)
        breaker = Breaker(world.stack, world.disk, load, world.settings.database_url)
        keeper = Keeper(world.disk.seen_by(breaker.supervisor))
        await Run(load, breaker, keeper).rage(planned(seed, span_s, blows=blows))
        # Only now: Postgres has been restarted under every connection of before.
        ledger = await asyncpg.connect(world.settings.database_url)
        async with Redis.from_url(world.settings.redis_url) as redis:
            aftermath = Aftermath(world, operator.limiter, ledger, redis, load, breaker, keeper)
            await aftermath.until_quiet()
            await aftermath.judge()
        await ledger.close()
        return aftermath


def show(table: Table, wrongs: Sequence[Wrong]) -> None:
    """Print the figures, and the first of the requests that are billed wrong."""
    for figure in table.figures:
        sys.stdout.write(f"{figure}\n")
    for wrong in wrongs[:SHOWN]:
        sys.stdout.write(f"{wrong}\n")


def main() -> int:
    """Read the arguments, run, and say whether every rule held."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=7.0, help="how long things break; 7 for all kills")
    parser.add_argument("--seed", type=int, default=1, help="the same seed breaks the same things")
    arguments = parser.parse_args()
    with real() as behind, running(behind, ROLL) as world:
        aftermath = asyncio.run(chaos(world, seed=arguments.seed, span_s=60 * arguments.minutes, blows=WHOLE))
    show(aftermath.table, aftermath.wrongs)
    sys.stdout.write(f"seed {arguments.seed}: {'all right' if aftermath.table.is_right else 'WRONG'}\n")
    return 0 if aftermath.table.is_right else 1


if __name__ == "__main__":
    sys.exit(main())

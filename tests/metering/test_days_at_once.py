"""Two processes that make one day of the ledger at once: both go on with it."""

from __future__ import annotations

import asyncio
from datetime import date

import asyncpg

from metering.ledger_store import LedgerStore

WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = $1)"


async def test_a_day_made_meanwhile_is_taken(database: str) -> None:
    """Who has waited for the other's transaction finds the day attached, not a table in its way."""
    first, second = await LedgerStore.connect(database), await LedgerStore.connect(database)
    watcher = await asyncpg.connect(database)
    day = date(2031, 5, 4)
    async with first.transaction():
        await first.ensure_partition(day)
        waiting = asyncio.create_task(second.ensure_partition(day))
        while not await watcher.fetchval(WAITS, second._connection.get_server_pid()):
            await asyncio.sleep(0.01)
    await waiting
    assert day in await second.partitions()
    for connection in (first, second, watcher):
        await connection.close()

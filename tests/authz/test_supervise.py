"""Background tasks go on after whatever fails in them."""

from __future__ import annotations

import asyncio

import asyncpg

from authz import supervise
from tests.authz.asking import Guard
from tests.authz.test_metrics import scrape

WITHIN_S = 20.0

BROKEN = """
    ALTER TABLE nodes RENAME TO kept;
    CREATE VIEW nodes AS SELECT * FROM kept WHERE 1 / (SELECT 0) = 1;
    GRANT SELECT ON nodes TO gateway_authz
"""
"""A table that can be asked and gives an error that no outage has: a division by zero."""


async def test_a_task_begins_again() -> None:
    """A task that fails in a way that no one foresaw, or ends, is counted and begun again."""
    begun, goes_on = 0, asyncio.Event()

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            raise KeyError("unforeseen")
        goes_on.set()

    task = asyncio.create_task(supervise.continually("a test", work))
    async with asyncio.timeout(WITHIN_S):
        await goes_on.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert 1 == supervise.failures["a test"]


async def test_an_error_of_postgres_ends_no_poller(guard: Guard, database: str) -> None:
    """An error that is no outage is logged, counted, and shown in the metrics."""
    connection = await asyncpg.connect(database)
    await connection.execute(BROKEN)
    try:
        async with asyncio.timeout(WITHIN_S):
            while not (await scrape(guard)).get(("gateway_task_failures_total", "nodes")):
                await asyncio.sleep(0.05)
    finally:
        await connection.execute("DROP VIEW nodes; ALTER TABLE kept RENAME TO nodes")
        await connection.close()

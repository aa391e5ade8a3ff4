"""How many nodes share the backends."""

from __future__ import annotations

import asyncio
from uuid import UUID

import asyncpg
import pytest

from authz.limiter.limiter import Limiter
from authz.nodes import Nodes
from authz.store import Store

ALIVE, SILENT, FOREIGN = UUID(int=1), UUID(int=2), UUID(int=3)


@pytest.mark.parametrize(
    ("vouching", "alive"), [((), 1), ((ALIVE,), 1), ((ALIVE, SILENT), 2), ((FOREIGN,), 1)]
)
async def test_nodes_share_while_metering_vouches(
    store: Store,
    limiter: Limiter,
    owner_of_tables: asyncpg.Connection,
    vouching: tuple[UUID, ...],
    alive: int,
) -> None:
    """A node counts while its journal is read; one that Postgres does not know never does."""
    query = "INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $1, now())"
    for node in (ALIVE, SILENT):
        await owner_of_tables.execute(query, node)
    for node in vouching:
        await limiter.vouch(node, lag_ms=5)
    nodes = Nodes(store, limiter, now_s=lambda: 0.0)
    nodes.alive = 7
    watching = asyncio.create_task(nodes.run())
    async with asyncio.timeout(10):
        while nodes.alive == 7:
            await asyncio.sleep(0.01)
    watching.cancel()

    assert alive == nodes.alive

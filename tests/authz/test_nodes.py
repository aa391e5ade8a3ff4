"""How many nodes share the backends."""

from __future__ import annotations

import asyncio
from uuid import UUID

import asyncpg
import pytest

from authz.limiter.limiter import Limiter
from authz.nodes import AGAIN_S, AWAITED_S, BEGINS_S, Nodes
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


async def test_a_new_node_is_waited_for(
    store: Store, limiter: Limiter, owner_of_tables: asyncpg.Connection
) -> None:
    """The first requests of a Caddy that has just begun wait until its metering has taken it up."""
    nodes = Nodes(store, limiter, now_s=lambda: 0.0)
    waiting = [asyncio.create_task(ask(ALIVE)) for ask in (nodes.knows, nodes.can_settle)]
    await asyncio.wait(waiting, timeout=3 * AGAIN_S)
    assert [False, False] == [task.done() for task in waiting]
    await owner_of_tables.execute("INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $1, now())", ALIVE)
    await limiter.vouch(ALIVE, lag_ms=5)
    assert [True, True] == await asyncio.gather(*waiting)


async def test_a_node_without_metering_is_refused(store: Store, limiter: Limiter) -> None:
    """A node that no metering takes up is waited for briefly, and after a while not at all."""
    looks: list[float] = []

    def now_s() -> float:
        """A clock that goes on by a quarter of the wait with each look."""
        looks.append(looks[-1] + AWAITED_S / 4)
        return looks[-1]

    nodes = Nodes(store, limiter, now_s=now_s)
    for began_s, expected in ((0.0, 5), (BEGINS_S, 2)):
        looks[:] = [began_s]
        assert not await nodes.knows(SILENT)
        assert expected == len(looks) - 1

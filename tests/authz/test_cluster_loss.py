"""Masters of a Redis Cluster die and slots move, under load: no wrong answer, and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.authz.cluster_load import Customer, load
from tests.redis_cluster import Node, Nodes, client

WITHIN_S = 120


async def until(is_met: Callable[[], bool]) -> None:
    """Wait for what the load does; the limit ends what never comes."""
    async with asyncio.timeout(WITHIN_S):
        while not is_met():
            await asyncio.sleep(0.02)


async def at_work(customers: list[Customer]) -> None:
    """Wait until each has been admitted a few times more."""
    before = [customer.seen["admitted"] for customer in customers]
    await until(lambda: all(c.seen["admitted"] >= n + 5 for c, n in zip(customers, before, strict=True)))


def crash(nodes: Nodes, master: Node) -> None:
    """Kill a master, and let its replica take its place."""
    master.kill()


def hand_over(nodes: Nodes, master: Node) -> None:
    """Let a replica take the place of its living master: a failover by hand."""
    nodes.replica(master).ask("CLUSTER", "FAILOVER")


@pytest.mark.parametrize("end", [crash, hand_over])
async def test_tenants_of_a_lost_master_are_rebuilt(
    cluster: Nodes, end: Callable[[Nodes, Node], None]
) -> None:
    """L2, L3, L4, L6: a failover is a loss for the tenants of that master alone; those of others go on."""
    async with client(cluster.url) as redis, load(cluster, redis) as customers:
        everyone = [customer for group in customers.values() for customer in group]
        await at_work(everyone)
        master, victims = next(iter(customers.items()))
        others = [customer for customer in everyone if customer not in victims]
        await asyncio.to_thread(end, cluster, master)
        await until(lambda: all(victim.seen["lost"] for victim in victims))
        await at_work(others)
        await until(lambda: all(victim.seen["rebuilt"] for victim in victims))
        await at_work(everyone)
        assert [0] * len(others) == [other.seen["lost"] for other in others]
    await asyncio.to_thread(cluster.mend)


@pytest.mark.parametrize("move", [Nodes.move, Nodes.move_at_once])
async def test_a_slot_moves_under_load(cluster: Nodes, move: Callable[..., None]) -> None:
    """L2, L3, L4, L6: a tenant whose slot moves is lost and rebuilt; at no step is an answer wrong."""
    async with client(cluster.url) as redis, load(cluster, redis) as customers:
        everyone = [customer for group in customers.values() for customer in group]
        await at_work(everyone)
        (_, (moved, *neighbours)), (to, _), *_ = customers.items()
        loop = asyncio.get_running_loop()

        async def turns() -> None:
            before = moved.seen.total()
            await until(lambda: moved.seen.total() >= before + 3)

        def meanwhile() -> None:
            asyncio.run_coroutine_threadsafe(turns(), loop).result()

        await asyncio.to_thread(move, cluster, moved.desk.tenant, to, meanwhile=meanwhile)
        await until(lambda: moved.seen["rebuilt"] > 0)
        await at_work(everyone)
        assert cluster.owner(moved.desk.tenant) is to
        assert not any(neighbour.seen["lost"] for neighbour in neighbours)
    await asyncio.to_thread(cluster.mend)

"""A master of a Redis Cluster that is away stops the settlements of its own tenants alone."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from authz.errors import LimiterUnavailable
from authz.limiter import keyspace
from authz.limiter.limiter import Limiter
from tests.metering.conftest import Begin
from tests.metering.writing import NODE, JournalFile
from tests.redis_cluster import CLUSTER, Node, Nodes


@pytest.mark.parametrize("redis_url", [CLUSTER], indirect=True)
async def test_tenants_of_other_masters_are_settled(
    begin: Begin, journal: JournalFile, limiter: Limiter, cluster: Nodes
) -> None:
    """B3: what can't be published waits in the outbox, and holds up neither others nor the vouching."""
    service, (lost, other, _) = await begin(), cluster.masters
    tenants = {cluster.tenant(lost): uuid4(), cluster.tenant(other): uuid4()}
    away, here = tenants
    await asyncio.to_thread(cluster.lose, lost)
    try:
        while _is_whole(limiter):
            await asyncio.sleep(0.01)
        for journal.tenant, journal.key in tenants.items():
            journal.request()
        await service.beat(5)
        assert 30 == _used(other, here)
        assert [away] == [row["tenant_id"] for row in await service.ledger.fetch("SELECT * FROM unpublished")]
        assert await limiter.lag_ms(NODE) is not None
    finally:
        await asyncio.to_thread(cluster.mend)
    while await service.count("unpublished"):
        await service.beat()
    assert 30 == _used(cluster.owner(away), away)


def _is_whole(limiter: Limiter) -> bool:
    try:
        limiter.ready()
    except LimiterUnavailable:
        return False
    return True


def _used(master: Node, tenant: UUID) -> int:
    return int(master.ask("HGET", keyspace.tenant(tenant), "u:t:t") or 0)

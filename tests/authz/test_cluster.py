"""REDIS_URL may name a Redis Cluster: every master is used, and what it can't be is said in a sentence."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import count
from uuid import uuid4

import pytest
from redis import Redis

from authz import forms
from authz.accounts.keys import create_key
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.errors import LimiterUnavailable, SettingsError
from authz.limiter import address
from authz.limiter.limiter import Limiter
from authz.stack.discovery import free_port
from authz.stack.doctor import redis
from authz.stack.doctor.finding import Level
from authz.stack.embedded import redis_binary
from authz.types import Identity, Limits
from tests.authz.asking import NODE, Guard, reason
from tests.redis_cluster import CLUSTER, MASTERS, Nodes, client, until


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster:///0",
        "redis+cluster://host:1,:2",
        "redis+cluster://host:1,",
        "redis+cluster://host:port",
        "redis+cluster://host:1/3",
        "redis+cluster://host:1?db=3",
        "redis+cluster://host:1?no_such=1",
    ],
)
def test_a_url_that_names_no_cluster_is_a_wrong_setting(url: str) -> None:
    """The URL of a cluster names hosts, and no database, for a cluster has one."""
    with pytest.raises(SettingsError, match="REDIS_URL can't be used"):
        Limiter(url)


def test_login_and_tls_are_those_of_every_node() -> None:
    """What precedes the hosts of a URL, and follows them, holds for the nodes that they name later, too."""
    url = "rediss+cluster://nz:p%40ss@one:7000,two:7001?ssl_cert_reqs=none"
    pools = [*address.pools(url), address.node(url, "::1", 7002)]
    assert None is forms.redis_url(url)
    assert [("one", 7000), ("two", 7001), ("::1", 7002)] == [
        (pool.connection_kwargs["host"], pool.connection_kwargs["port"]) for pool in pools
    ]
    for pool in pools:
        assert ("nz", "p@ss") == tuple(pool.connection_kwargs[name] for name in ("username", "password"))
        assert "SSLConnection" == pool.connection_class.__name__
        assert address.OURS.items() <= pool.connection_kwargs.items()


async def test_a_node_is_not_taken_for_a_redis(cluster: Nodes) -> None:
    """A plain URL that leads to a node of a cluster is refused with what to write instead."""
    with pytest.raises(LimiterUnavailable, match=r"write REDIS_URL as redis\+cluster://HOST:PORT,HOST:PORT"):
        await Limiter.connect(f"redis://127.0.0.1:{cluster.all[0].port}")


@pytest.fixture
def alone() -> Iterator[int]:
    """The port of a Redis that belongs to no cluster."""
    port = free_port()
    options = ("--port", str(port), "--save", "", "--bind", "127.0.0.1")
    with subprocess.Popen([redis_binary(), *options], stdout=subprocess.DEVNULL) as server:
        until(lambda: Redis(port=port).ping())
        yield port
        server.kill()


async def test_a_redis_is_not_taken_for_a_node(alone: int) -> None:
    """A cluster's URL that leads to a Redis of its own is refused with what to write instead."""
    with pytest.raises(LimiterUnavailable, match="no node of a cluster: write REDIS_URL as redis://"):
        await Limiter.connect(f"redis+cluster://127.0.0.1:{alone}")


async def test_an_absent_cluster_is_one_sentence() -> None:
    """A cluster of which no node answers is an outage, and says what to check."""
    with pytest.raises(LimiterUnavailable, match="check REDIS_URL and that its nodes run"):
        await Limiter.connect(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{free_port()}")


async def test_every_master_is_asked(cluster: Nodes) -> None:
    """Each master knows every node's metering, under a key of its own, and is probed by a write."""
    limiter, node = await Limiter.connect(cluster.url), uuid4()
    await limiter.vouch(node, lag_ms=7)
    await limiter.probe()
    assert 7 == await limiter.lag_ms(node)
    async with client(cluster.url) as redis:
        assert MASTERS == len(await redis.keys(f"nz:metering:{node}*"))
    assert {1} == {link.server.replicas for link in limiter.links()}
    assert MASTERS == len({link.run_id for link in limiter.links()})
    await limiter.close()


async def test_a_master_that_evicts_is_refused(cluster: Nodes) -> None:
    """One master that may forget budgets is named, and no tenant of its own is asked for; others are."""
    limiter, evicting = await Limiter.connect(cluster.url), cluster.masters[0]
    mine, other = (cluster.tenant(master) for master in cluster.masters[:2])
    evicting.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        while MASTERS == len(limiter.links()):
            await asyncio.sleep(0.01)
        reason = rf"Redis 127.0.0.1:{evicting.port} may evict budgets.*set its maxmemory-policy to noeviction"
        for refused in (limiter.ready, partial(limiter.run, mine)):
            with pytest.raises(LimiterUnavailable, match=reason):
                refused()
        assert limiter.run(other)
    finally:
        evicting.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await limiter.close()


async def test_doctor_asks_every_master(cluster: Nodes) -> None:
    """Clocks of all masters are compared, and one without a replica is named with what that means."""
    master = cluster.masters[0]
    well = await redis.gather(cluster.url, [])
    assert not isinstance(well, str)
    assert MASTERS == len(well.clocks)
    (fine,) = redis.judge(well)
    assert Level.OK is fine.level
    assert f"Each of {MASTERS} masters is noeviction" in fine.sentence
    cluster.replica(master).kill()
    try:
        until(lambda: "0" == master.state["connected_slaves"])
        (found,) = redis.judge(await redis.gather(cluster.url, []))
        assert Level.WARN is found.level
        assert f"Redis 127.0.0.1:{master.port} has no replica" in found.sentence
    finally:
        cluster.mend()


@pytest.mark.parametrize("redis_url", [CLUSTER], indirect=True)
async def test_the_gateway_lacks_a_master(
    guard: Guard, session: Session, owner: Identity, cluster: Nodes
) -> None:
    """G2: a tenant whose master is away gets 503, `/readyz` and `doctor` name it; other tenants go on."""
    await session.limiter.vouch(NODE, lag_ms=0)
    assert 204 == (await guard.ask()).status_code
    lost = cluster.owner(owner.tenant)
    other = next(master for master in cluster.masters if master is not lost)
    names = (f"tenant-{number}" for number in count())
    while cluster.owner(await create_tenant(session, name := next(names))) is not other:
        pass
    key = (await create_key(session, tenant=name, name="first", limits=Limits(tokens_total=10**6))).key
    await asyncio.to_thread(cluster.lose, lost)
    try:
        while (answer := await guard.ask()).status_code == 204:
            await asyncio.sleep(0.01)
        assert (503, "limiter_unavailable") == (answer.status_code, reason(answer))
        assert 204 == (await guard.ask(key=key)).status_code
        missing = (await guard._client.get("/readyz")).json()["missing"]
        assert any(f"Redis 127.0.0.1:{lost.port} " in sentence for sentence in missing)
        (found,) = redis.judge(await redis.gather(cluster.url, []))
        assert Level.FAIL is found.level
        assert f"127.0.0.1:{lost.port}" in found.sentence
    finally:
        await asyncio.to_thread(cluster.mend)

"""REDIS_URL may name Sentinels: whatever they call the master is ours."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from attrs import define
from redis.asyncio import Redis
from redis.exceptions import RedisError

from authz.errors import LimiterUnavailable, SettingsError
from authz.limiter.limiter import Limiter
from authz.stack.discovery import free_port
from authz.stack.embedded import redis_binary

SERVER = redis_binary()
CONNECTED_WITHIN_S = 10
PROMOTED_WITHIN_S = 60


@pytest.fixture
def sentinel() -> Iterator[int]:
    """The port of a Sentinel that watches a master named ceilings."""
    master, port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        config = Path(folder) / "sentinel.conf"
        watched = f"sentinel monitor ceilings 127.0.0.1 {master} 1"
        config.write_text(f"port {port}\ndir {folder}\n{watched}\n")
        with (
            _quiet(SERVER, "--port", str(master), "--save", "", "--dir", folder) as redis,
            _quiet(SERVER, config, "--sentinel") as watch,
        ):
            yield port
            watch.terminate()
            redis.terminate()


def _quiet(*command: str | Path) -> subprocess.Popen[bytes]:
    """Start a program whose output is not wanted."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def _connected(url: str) -> Limiter:
    """Connect as soon as Sentinel knows its master."""
    async with asyncio.timeout(CONNECTED_WITHIN_S):
        while True:
            try:
                return await Limiter.connect(url)
            except LimiterUnavailable:
                await asyncio.sleep(0.05)


@define
class Watched:
    """A master with a replica, and the Sentinel that promotes it."""

    master: subprocess.Popen[bytes]
    replica_port: int
    sentinel_port: int

    @property
    def url(self) -> str:
        """What REDIS_URL says."""
        return f"sentinel://127.0.0.1:{self.sentinel_port}/ceilings"


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A Sentinel that takes a master for dead after half a second."""
    master, replica, port = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="nz", ignore_cleanup_errors=True) as folder:
        config = Path(folder) / "sentinel.conf"
        lines = (
            f"port {port}",
            f"dir {folder}",
            f"sentinel monitor ceilings 127.0.0.1 {master} 1",
            "sentinel down-after-milliseconds ceilings 500",
            "sentinel failover-timeout ceilings 2000",
        )
        config.write_text("\n".join(lines) + "\n")
        volatile = ("--save", "", "--appendonly", "no", "--dir", folder)
        with (
            _quiet(SERVER, "--port", str(master), *volatile) as first,
            _quiet(SERVER, "--port", str(replica), "--replicaof", f"127.0.0.1 {master}", *volatile) as second,
            _quiet(SERVER, config, "--sentinel") as watch,
        ):
            yield Watched(first, replica, port)
            for process in (watch, second, first):
                process.kill()


async def test_a_promoted_replica_is_not_trusted(watched: Watched) -> None:
    """After a failover the new master is used, and a tenant that it has a copy of counts as lost.

    The copy may lack what the old master had admitted last: all is read from Postgres again.
    """
    limiter, tenant, key = await _connected(watched.url), uuid4(), uuid4()
    await limiter.create(tenant, 1)
    await limiter.raise_versions(tenant, {None: 1, key: 1})
    assert (1, 1) == await limiter.versions(tenant, key)
    async with (
        Redis(port=watched.replica_port) as replica,
        Redis(port=watched.sentinel_port) as sentinel,
        asyncio.timeout(PROMOTED_WITHIN_S),
    ):
        while not (await _has_copy(replica, tenant) and await _has_replica(sentinel)):
            await asyncio.sleep(0.05)
    watched.master.kill()
    found = None
    async with asyncio.timeout(PROMOTED_WITHIN_S):
        while found is None:
            with suppress(LimiterUnavailable):
                found = [await limiter.versions(tenant, key)]
            await asyncio.sleep(0.05)
    assert [None] == found
    fresh = uuid4()
    await limiter.create(fresh, 1)
    await limiter.raise_versions(fresh, {None: 1, key: 1})
    assert (1, 1) == await limiter.versions(fresh, key), "a tenant that is made on it is known"
    async with Redis(port=watched.replica_port) as promoted:
        assert "master" == (await promoted.info("replication"))["role"]
        assert await _has_copy(promoted, tenant), "what it has a copy of, and is not believed of"
    await limiter.close()


async def _has_copy(server: Redis, tenant: UUID) -> bool:
    with suppress(RedisError):
        return bool(await server.keys(f"*{tenant}*"))
    return False


async def _has_replica(sentinel: Redis) -> bool:
    """Return whether there is one to promote: Sentinel asks the master every ten seconds."""
    return bool(await sentinel.sentinel_slaves("ceilings"))


async def test_the_master_is_found(sentinel: int) -> None:
    """The limiter works on the Redis that Sentinel names, also if another Sentinel is away."""
    limiter = await _connected(f"sentinel://127.0.0.1:{sentinel},127.0.0.1:1/ceilings")
    assert await limiter.now() > datetime.fromtimestamp(0, UTC)
    await limiter.close()


async def test_an_unknown_master_is_unavailable(sentinel: int) -> None:
    """A name that no Sentinel knows is refused with a sentence."""
    with pytest.raises(LimiterUnavailable):
        await Limiter.connect(f"sentinel://127.0.0.1:{sentinel}/another")


@pytest.mark.parametrize(
    "url", ["sentinel://", "sentinel:///name", "sentinel://host:26379", "sentinel://h:port/m"]
)
def test_a_url_that_names_no_master_is_a_wrong_setting(url: str) -> None:
    """A Sentinel URL names hosts and a master."""
    with pytest.raises(SettingsError, match="REDIS_URL can't be used"):
        Limiter(url)

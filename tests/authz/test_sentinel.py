"""REDIS_URL may name Sentinels: whatever they call the master is ours."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from authz.errors import LimiterUnavailable, SettingsError
from authz.limiter.limiter import Limiter
from authz.stack.discovery import free_port
from authz.stack.embedded import redis_binary

SERVER = redis_binary()
CONNECTED_WITHIN_S = 10


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

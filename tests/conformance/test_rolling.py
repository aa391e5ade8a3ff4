"""An upgrade under load, part by part: no request fails, and the bill is what the real Ollama counted."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.chaos.rolling import Rolling, listens, rolling, second_caddy
from tests.chaos.world import Behind, real
from tests.gateway import Gateway, running

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    """A real Ollama that answers all clients at once."""
    with real() as started:
        yield started


@pytest.fixture(scope="module")
def upgraded(behind: Behind) -> Iterator[Gateway]:
    """A gateway of its own, as its parts are replaced."""
    with running(behind.url, OLLAMA_URL=behind.url) as started:
        yield started


@pytest.fixture
async def world(upgraded: Gateway, behind: Behind) -> AsyncIterator[Rolling]:
    """Clients of that gateway, each test's with keys of their own."""
    async with rolling(upgraded, behind) as made:
        yield made


async def all_right(world: Rolling) -> None:
    """Compare what clients saw, the books and the backend's account."""
    table = await world.table()
    assert [] == [str(figure) for figure in table.figures if not figure.is_right], world.clients.faults()


async def test_authz_is_restarted(world: Rolling) -> None:
    """One process of authz after the other, each when the one before it answers."""

    async def restart() -> None:
        for name in ("authz-0", "authz-1"):
            await world.restart(name)
            await listens(world.run / f"{name}.sock", "/readyz")

    await world.clients.ask_during(restart)
    await all_right(world)


async def test_metering_is_restarted(world: Rolling) -> None:
    """While metering is away its vouching lasts, and what has ended frees its slot."""

    async def restart() -> None:
        for _ in range(2):
            await world.restart("metering")
            await listens(world.run / "metering.sock", "/metrics")

    await world.clients.ask_during(restart)
    await all_right(world)


async def test_caddy_is_reloaded(world: Rolling) -> None:
    """Streams go on, and no connection is closed that a client may be about to use."""

    async def reload() -> None:
        for _ in range(2):
            os.kill(world.pid("caddy"), signal.SIGUSR1)
            await world.clients.answered(100)

    await world.clients.ask_during(reload)
    await all_right(world)


async def test_caddy_is_replaced(world: Rolling) -> None:
    """A second Caddy takes over the port while the first is replaced, then drains itself."""

    async def replace() -> None:
        async with second_caddy(world) as second:
            await world.restart("caddy")
            await listens(world.run / "control.sock", "/healthz")
            await world.clients.answered(20)
            await second.end(world.ledger)

    await world.clients.ask_during(replace)
    await all_right(world)

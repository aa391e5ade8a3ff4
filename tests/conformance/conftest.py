"""The gateway in front of the real Ollama, and the two beside each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.gateway import Gateway, NewKey, keymaker, running
from tests.ollama.server import Ollama, running_ollama


@pytest.fixture(scope="session")
def ollama() -> Iterator[Ollama]:
    """The real Ollama, with the ledger of what it really generated."""
    with running_ollama(parallel=4) as started:
        yield started


@pytest.fixture(scope="session")
def gateway(ollama: Ollama) -> Iterator[Gateway]:
    """A gateway in front of it."""
    with running(ollama.url, OLLAMA_URL=ollama.url) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gated(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway with a valid key."""
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def direct(ollama: Ollama) -> AsyncIterator[httpx.AsyncClient]:
    """A client of Ollama itself."""
    async with httpx.AsyncClient(base_url=ollama.url, timeout=20) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ledger(gateway: Gateway) -> AsyncIterator[asyncpg.Connection]:
    """The database that bills."""
    connection = await asyncpg.connect(gateway.database_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def new_key(gateway: Gateway) -> AsyncIterator[NewKey]:
    """Creates a key of a tenant of its own: no other request has taught its figures."""
    async with keymaker(gateway) as make:
        yield make


@pytest.fixture
def tag() -> str:
    """The name of this test's requests in the ledger of truth, and of its gate."""
    return f"t{uuid4().hex[:12]}"


@pytest.fixture(params=["malformed", "unknown"])
def wrong_key(request: pytest.FixtureRequest, gateway: Gateway) -> str:
    """Keys that were never made: one that is no key at all, and one with another last character."""
    if request.param == "malformed":
        return "sk-wrong"
    return gateway.key[:-1] + ("a" if gateway.key[-1] != "a" else "b")

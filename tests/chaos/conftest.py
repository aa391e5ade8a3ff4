"""A gateway of its own for whoever breaks things, in front of a backend of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tests.backend.app import backend
from tests.backend.serving import served
from tests.gateway import Gateway, NewKey, keymaker, running


@pytest.fixture(scope="module")
def broken() -> Iterator[Gateway]:
    """A gateway whose processes may be killed: the supervisor brings them back."""
    with served(backend("demo")) as backend_url, running(backend_url, OLLAMA_URL=backend_url) as gateway:
        yield gateway


@pytest.fixture
async def new_key(broken: Gateway) -> AsyncIterator[NewKey]:
    """Creates a key of a tenant of its own, with limits on either."""
    async with keymaker(broken) as make:
        yield make


@pytest.fixture
async def ledger(broken: Gateway) -> AsyncIterator[asyncpg.Connection]:
    """The database that bills."""
    connection = await asyncpg.connect(broken.database_url)
    yield connection
    await connection.close()

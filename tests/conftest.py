"""Real servers for every test: one PostgreSQL and one Redis a run, a fresh database a test."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import hypothesis
import pytest
from attrs import evolve

from authz.limiter.limiter import Limiter
from authz.schema import migrate
from authz.stack import embedded
from authz.stack.embedded import Server
from authz.store import AUTHZ_ROLE, Store
from tests import redis_cluster
from tests.clock import wall
from tests.redis_cluster import Nodes

# How long an example takes says more about the machine than about the product.
hypothesis.settings.register_profile("gateway", deadline=None)
hypothesis.settings.load_profile("gateway")

pytest_plugins = ["tests.gateway"]

TEMPLATE = "gateway_template"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def stores() -> Iterator[Path]:
    """A folder with a PostgreSQL and a Redis that run as long as the tests do."""
    with tempfile.TemporaryDirectory(prefix="nz", ignore_cleanup_errors=True) as folder:
        state = Path(folder)
        postgres, redis = embedded.postgres_server(state), embedded.redis_server(state)
        for server in (postgres, redis):
            share_clock(server)
        with postgres, redis:
            migrate(embedded.postgres_url(state, TEMPLATE))
            assert postgres.url
            yield state


def share_clock(server: Server) -> None:
    """Give a server the wall clock of this run: programs of the stack inherit no environment."""
    program = server._program
    server._program = evolve(program, environ={**program.environ, **wall.environ()})


@pytest.fixture
async def database(stores: Path) -> AsyncIterator[str]:
    """The URL of a database of this test alone, migrated."""
    name = f"gateway_{next(_numbers)}"
    maintenance = await asyncpg.connect(embedded.postgres_url(stores, "postgres"))
    try:
        await maintenance.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        yield embedded.postgres_url(stores, name)
        await maintenance.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await maintenance.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Nodes]:
    """A Redis Cluster, if any test wants one."""
    with (
        tempfile.TemporaryDirectory(prefix="nz", ignore_cleanup_errors=True) as folder,
        redis_cluster.running(Path(folder)) as nodes,
    ):
        yield nodes


@pytest.fixture
async def redis_url(request: pytest.FixtureRequest, stores: Path) -> str:
    """The URL of an empty Redis; of a cluster where `on_both` says so."""
    url = f"unix://{stores}/run/redis.sock?db=0"
    if getattr(request, "param", "") == redis_cluster.CLUSTER:
        url = request.getfixturevalue("cluster").url
    async with redis_cluster.client(url) as client:
        await client.flushall()
    return url


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    """An open Store, as authz has it."""
    opened = Store(database, role=AUTHZ_ROLE)
    yield opened
    await opened.close()


@pytest.fixture
async def owner_of_tables(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that no grant limits: a test writes and reads what no program may."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest.fixture
async def limiter(redis_url: str) -> AsyncIterator[Limiter]:
    """A connected Limiter."""
    opened = await Limiter.connect(redis_url)
    yield opened
    await opened.close()

"""A database that lacks migrations: nothing is served, it is said why, and a migration mends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
import uvicorn

from authz.__main__ import run
from authz.accounts.keys import CreatedKey
from authz.app import build
from authz.errors import StoreUnavailable
from authz.schema import migrate
from authz.settings import Settings
from metering.ledger_store import LedgerStore
from tests.authz.asking import Guard
from tests.metering.test_release_before import back

OLDER = "The database is older than this program: run `neuronetz-gateway migrate` first."


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """An authz of its own on these settings."""
    socket = settings.state / "authz.sock"
    config = uvicorn.Config(
        build(settings), uds=str(socket), http="httptools", ws="none", log_level="warning"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://authz") as client:
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        yield client
    server.should_exit = True
    await serving


@pytest.mark.parametrize("lacking", ["20261129000200", "20261128000100"])
async def test_authz_on_an_older_database(
    database: str, settings: Settings, key: CreatedKey, owner_of_tables: asyncpg.Connection, lacking: str
) -> None:
    """It starts, refuses with 503, says in /readyz what to do, and serves once that is done.

    The migrations that it lacks are of a table or column that a decision reads.
    """
    is_there = "SELECT EXISTS (SELECT FROM schema_migrations WHERE version = $1)"
    while await owner_of_tables.fetchval(is_there, lacking):
        back(database)
    async with served(settings) as client:
        ready = await client.get("/readyz")
        assert 503 == ready.status_code
        assert OLDER in ready.json()["missing"]
        decision = await Guard(client, key.key).ask()
        assert 503 == decision.status_code

        migrate(database)
        assert OLDER not in (await client.get("/readyz")).json()["missing"]


@pytest.mark.usefixtures("outside")
def test_a_newer_database_is_one_sentence(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that a later release has migrated is left as it is, and said to be newer."""
    assert 0 == run(["migrate"])
    assert ("The schema is up to date.\n", "") == capsys.readouterr()
    asyncio.run(apply_later_migration(database))
    assert 0 == run(["migrate"])
    error = capsys.readouterr().err
    assert error.startswith("The database is newer than this program (it has the migration 20991231000000): ")
    assert 1 == error.count("\n")


async def apply_later_migration(database: str) -> None:
    """Note a migration that no release of today has, as dbmate does."""
    owner = await asyncpg.connect(database)
    await owner.execute("INSERT INTO schema_migrations (version) VALUES ('20991231000000')")
    await owner.close()


async def test_metering_on_an_older_database(database: str) -> None:
    """It is away like any store that can't be asked, for the reason that helps."""
    store = await LedgerStore.connect(database)
    try:
        with pytest.raises(StoreUnavailable, match=OLDER):
            await store._run("SELECT a_later_column FROM open_requests")
    finally:
        await store.close()

"""The role that services and commands act as: it adds to history and can't change it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path

import asyncpg
import pytest

import sql
from authz.errors import CommandError, StoreUnavailable
from authz.schema import migrate
from authz.stack import embedded
from authz.store import ROLE, Store
from metering.ledger_store import LedgerStore as Metering

HISTORY = ("ledger", "ledger_20261125", "admin_audit")


@pytest.fixture
async def service(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the role; the 25th of November has its partition."""
    connection = await asyncpg.connect(database, server_settings={"role": ROLE})
    await connection.execute("SELECT ensure_ledger_partition('2026-11-25')")
    yield connection
    await connection.close()


async def test_services_and_commands_take_the_role(database: str, store: Store) -> None:
    """Neither authz, nor a command, nor metering acts as the owner of the tables."""
    metering = await Metering.connect(database)
    try:
        async with store.connection() as connection:
            assert ROLE == await connection.fetchval("SELECT current_user")
        assert ROLE == await metering._connection.fetchval("SELECT current_user")
    finally:
        await metering.close()


@pytest.mark.parametrize("table", HISTORY)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET at = now()",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "DROP TABLE {}",
        "ALTER TABLE {} ADD x int",
    ],
)
async def test_history_can_not_be_rewritten(service: asyncpg.Connection, table: str, statement: str) -> None:
    """What the ledger and the audit of changes hold stays, under a partition's own name, too."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement.format(table))


async def test_a_partition_belongs_to_the_owner(service: asyncpg.Connection, database: str) -> None:
    """Whoever has a partition made by the function does not own it."""
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = $1"
    tables = [await service.fetchval(owner, table) for table in ("ledger", "ledger_20261125")]
    assert ["postgres", "postgres"] == tables


@pytest.mark.parametrize("name", ["authz", "admin", "journal", "ledger", "books"])
async def test_the_role_may_run_every_query(service: asyncpg.Connection, name: str) -> None:
    """No query of ours needs the owner's rights."""
    queries = sql.load(name)
    texts = [
        getattr(queries, query).sql for query in queries.available_queries if not query.endswith("_cursor")
    ]
    for text in texts:
        # The executor checks rights when it explains, too; what can't be explained changes nothing.
        await service.execute(text if text.startswith("SET ") else f"EXPLAIN (GENERIC_PLAN) {text}")


@pytest.fixture(scope="module")
def fresh() -> Iterator[Path]:
    """A server on which nothing was ever migrated, with two plain owners."""
    with tempfile.TemporaryDirectory(prefix="nz", ignore_cleanup_errors=True) as folder:
        state = Path(folder)
        with embedded.postgres_server(state):
            asyncio.run(_add_owners(state))
            yield state


async def _add_owners(state: Path) -> None:
    connection = await asyncpg.connect(embedded.postgres_url(state, "postgres"))
    await connection.execute("CREATE ROLE maker LOGIN CREATEDB CREATEROLE; CREATE ROLE poor LOGIN CREATEDB")
    await connection.close()


def _url(state: Path, owner: str) -> str:
    return embedded.postgres_url(state, owner).replace("postgres@", f"{owner}@")


def test_the_role_needs_no_superuser(fresh: Path) -> None:
    """An owner that may make roles migrates alone; another is told what an administrator must do first."""
    with pytest.raises(CommandError, match="an administrator must first run: CREATE ROLE gateway_service"):
        migrate(_url(fresh, "poor"))
    migrate(_url(fresh, "maker"))
    asyncio.run(_serve_and_grant(fresh))
    migrate(_url(fresh, "poor"))


async def _serve_and_grant(fresh: Path) -> None:
    """The services of one owner work; the administrator does what the other was told."""
    metering = await Metering.connect(_url(fresh, "maker"))
    await metering.ensure_partition(date(2026, 11, 25))
    assert await metering.drop_partition(date(2026, 11, 25))
    await metering.close()
    connection = await asyncpg.connect(embedded.postgres_url(fresh, "postgres"))
    await connection.execute("GRANT gateway_service TO poor")
    await connection.close()


@pytest.mark.parametrize(
    "failure",
    [
        asyncpg.InternalClientError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.DiskFullError,
        asyncpg.TooManyConnectionsError,
        asyncpg.AdminShutdownError,
        ConnectionRefusedError,
    ],
)
async def test_what_is_no_fault_of_a_query_is_unavailable(store: Store, failure: type[Exception]) -> None:
    """E12: whatever keeps Postgres from answering is one failure, which every poller outlives."""
    with pytest.raises(StoreUnavailable):
        async with store.connection():
            raise failure("as it comes")

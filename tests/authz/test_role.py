"""Three roles: each program may do what it needs, and none can rewrite what was billed."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path

import asyncpg
import pytest

import sql
from authz.__main__ import run
from authz.accounts.session import Session
from authz.errors import CommandError, StoreUnavailable
from authz.schema import migrate
from authz.stack import embedded
from authz.store import ADMIN_ROLE, AUTHZ_ROLE, METERING_ROLE, Store, act_as
from metering.ledger_store import LedgerStore as Metering

ROLES = (AUTHZ_ROLE, METERING_ROLE, ADMIN_ROLE)
BILLED = ("ledger", "ledger_20261125", "admin_audit", "budget_windows", "usage_daily")


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection without a role yet; the 25th of November has its partition."""
    opened = await asyncpg.connect(database)
    await opened.execute("SELECT ensure_ledger_partition('2026-11-25')")
    yield opened
    await opened.close()


async def test_every_program_takes_its_role(store: Store, session: Session, database: str) -> None:
    """None acts as the owner of the tables, on the first use of a connection and on the next."""
    metering = await Metering.connect(database)
    for _ in range(2):
        for opened, role in ((store, AUTHZ_ROLE), (session.store, ADMIN_ROLE)):
            async with opened.connection() as borrowed:
                assert role == await borrowed.fetchval("SELECT current_user")
        assert METERING_ROLE == await metering._connection.fetchval("SELECT current_user")
    await metering.close()


async def test_a_role_that_is_not_there_yet_is_waited_for(connection: asyncpg.Connection) -> None:
    """Before a migration has made it, the store is unavailable, which every poller outlives."""
    with pytest.raises(StoreUnavailable, match="has no role gateway_new: run `neuronetz-gateway migrate`"):
        await act_as(connection, "gateway_new")


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE tenants CASCADE",
        "ALTER TABLE tenants DROP COLUMN timezone CASCADE",
        "DROP FUNCTION credit_tenant",
    ],
)
def test_a_database_that_is_older_is_one_sentence(
    database: str, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command on a schema that lacks something says what to run."""
    asyncio.run(_execute(database, "INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'acme')"))
    asyncio.run(_execute(database, change))
    assert 1 == run(["usage", "credit", "--tenant", "acme", "--tokens", "1", "--reason", "r"])
    said = "error: The database is older than this program: run `neuronetz-gateway migrate` first.\n"
    assert said == capsys.readouterr().err


async def test_a_role_is_no_parameter_of_a_connection(store: Store, database: str) -> None:
    """PgBouncer refuses a client that names a role when it connects; then RESET would lead back to it."""
    metering = await Metering.connect(database)
    async with store.connection() as borrowed:
        for opened in (borrowed, metering._connection):
            assert await opened.fetchval("SELECT current_user <> session_user")
            await opened.execute("RESET ROLE")
            assert await opened.fetchval("SELECT current_user = session_user")
    await metering.close()


@pytest.mark.parametrize("table", BILLED)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM {}", "TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} ADD x int"],
)
async def test_nothing_billed_is_removed(
    connection: asyncpg.Connection, role: str, table: str, statement: str
) -> None:
    """What was billed stays, under a partition's own name, too."""
    await act_as(connection, role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement.format(table))


FORBIDDEN = {
    AUTHZ_ROLE: (
        "INSERT INTO ledger DEFAULT VALUES",
        "INSERT INTO secrets DEFAULT VALUES",
        "INSERT INTO unpublished DEFAULT VALUES",
        "UPDATE budget_windows SET used = 0",
        "UPDATE usage_daily SET input_tokens = 0",
        "UPDATE keys SET state = 'active'",
        "UPDATE tenants SET tokens_total = NULL",
        "SELECT ip FROM ledger",
        "SELECT drop_ledger_partition('2026-11-25')",
    ),
    METERING_ROLE: (
        "UPDATE ledger SET input_tokens = 0",
        "UPDATE ledger_20261125 SET input_tokens = 0",
        "UPDATE budget_windows SET start = '2020-01-01'",
        "UPDATE budget_windows SET scope_id = gen_random_uuid()",
        "INSERT INTO secrets DEFAULT VALUES",
        "INSERT INTO keys DEFAULT VALUES",
        "INSERT INTO admin_audit DEFAULT VALUES",
        "SELECT hash FROM secrets",
        "UPDATE keys SET state = 'active'",
    ),
    ADMIN_ROLE: (
        "INSERT INTO ledger DEFAULT VALUES",
        "INSERT INTO unpublished DEFAULT VALUES",
        "INSERT INTO budget_windows DEFAULT VALUES",
        "UPDATE ledger SET input_tokens = 0",
        "UPDATE admin_audit SET actor = 'another'",
        "UPDATE budget_windows SET used = 0",
        "UPDATE usage_daily SET input_tokens = 0",
        "UPDATE secrets SET hash = ''",
        "SELECT hash FROM secrets",
        "SELECT drop_ledger_partition('2026-11-25')",
    ),
}


@pytest.mark.parametrize(("role", "statement"), [(r, s) for r, them in FORBIDDEN.items() for s in them])
async def test_what_a_program_need_not_do_fails(
    connection: asyncpg.Connection, role: str, statement: str
) -> None:
    """Whoever takes over one program can't forge a bill, a secret or a limit by it."""
    await act_as(connection, role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)


async def test_a_partition_belongs_to_the_owner(connection: asyncpg.Connection) -> None:
    """Whoever has a partition made by the function does not own it."""
    await act_as(connection, METERING_ROLE)
    await connection.execute("SELECT ensure_ledger_partition('2026-11-26')")
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = $1"
    tables = [await connection.fetchval(owner, table) for table in ("ledger", "ledger_20261126")]
    assert ["postgres", "postgres"] == tables


OF_EVERY_PROGRAM = ("unpublished_versions", "mark_tenant_published", "mark_key_published")
QUERIES = [
    (AUTHZ_ROLE, "authz", None),
    *((ADMIN_ROLE, name, None) for name in ("accounts", "admin", "usage")),
    (ADMIN_ROLE, "authz", ("names", *OF_EVERY_PROGRAM)),
    *((METERING_ROLE, name, None) for name in ("journal", "ledger", "books")),
    (METERING_ROLE, "authz", OF_EVERY_PROGRAM),
]


@pytest.mark.parametrize(("role", "name", "those"), QUERIES)
async def test_a_program_may_run_its_queries(
    connection: asyncpg.Connection, role: str, name: str, those: tuple[str, ...] | None
) -> None:
    """No query needs the owner's rights."""
    queries = sql.load(name)
    await act_as(connection, role)
    for query in those or queries.available_queries:
        text = getattr(queries, query).sql
        # The executor checks rights when it explains, too; what can't be explained changes nothing.
        await connection.execute(text if text.startswith("SET ") else f"EXPLAIN (GENERIC_PLAN) {text}")


@pytest.fixture(scope="module")
def fresh() -> Iterator[Path]:
    """A server on which nothing was ever migrated, with two plain owners."""
    with tempfile.TemporaryDirectory(prefix="nz", ignore_cleanup_errors=True) as folder:
        state = Path(folder)
        with embedded.postgres_server(state):
            asyncio.run(_administer(state, "CREATE ROLE maker LOGIN CREATEDB CREATEROLE"))
            asyncio.run(_administer(state, "CREATE ROLE poor LOGIN CREATEDB"))
            yield state


async def _administer(state: Path, statement: str) -> None:
    await _execute(embedded.postgres_url(state, "postgres"), statement)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


def _url(state: Path, owner: str) -> str:
    return embedded.postgres_url(state, owner).replace("postgres@", f"{owner}@")


def test_the_roles_need_no_superuser(fresh: Path) -> None:
    """An owner that may make roles migrates alone; another reads what an administrator must do first."""
    with pytest.raises(CommandError, match="an administrator must first run: CREATE ROLE gateway_service"):
        migrate(_url(fresh, "poor"))
    migrate(_url(fresh, "maker"))
    asyncio.run(_serve(_url(fresh, "maker")))
    asyncio.run(_administer(fresh, "GRANT gateway_service TO poor"))
    with pytest.raises(CommandError, match=r"must first run: CREATE ROLE gateway_authz .* TO poor"):
        migrate(_url(fresh, "poor"))
    asyncio.run(_administer(fresh, f"GRANT {', '.join(ROLES)}, gateway_reader TO poor"))
    with pytest.raises(CommandError, match=r"must first run: CREATE ROLE gateway_auditor .* TO poor"):
        migrate(_url(fresh, "poor"))
    asyncio.run(_administer(fresh, "GRANT gateway_auditor TO poor"))
    migrate(_url(fresh, "poor"))


async def _serve(url: str) -> None:
    metering = await Metering.connect(url)
    await metering.ensure_partition(date(2026, 11, 25))
    await metering.close()
    authz = Store(url, role=AUTHZ_ROLE)
    assert () == await authz.tenants()
    await authz.disable("nz_AAAAAAAA")
    await authz.close()


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
    """Whatever keeps Postgres from answering is one failure, which every poller outlives."""
    with pytest.raises(StoreUnavailable):
        async with store.connection():
            raise failure("as it comes")

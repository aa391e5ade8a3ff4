"""One release up and one back: this schema serves the release before, and gives its own back unharmed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from importlib import resources

import asyncpg
import pytest

from authz.schema import _dbmate, dbmate_urls, migrate
from tests.metering.conftest import Begin, Service
from tests.metering.release_before import FILES, ROLE, ReleaseBefore, queries
from tests.metering.test_refusals import STRANGER
from tests.metering.verifying import verified
from tests.metering.writing import KEY, TENANT, JournalFile

ITS_LAST = "20261125000002"
"""The last migration of the release before."""


@pytest.fixture
async def before(database: str, journal: JournalFile) -> AsyncIterator[ReleaseBefore]:
    """The release before: it names its role when it connects."""
    connection = await asyncpg.connect(database, server_settings={"role": ROLE})
    yield ReleaseBefore(journal, connection)
    await connection.close()


@pytest.mark.parametrize("name", FILES)
async def test_every_query_of_the_release_before_runs(before: ReleaseBefore, name: str) -> None:
    """Its role still may do all that its programs and commands do, and every name that they use is there."""
    its = queries(name)
    for query in its.available_queries:
        text = getattr(its, query).sql
        await before.connection.execute(text if text.startswith("SET ") else f"EXPLAIN (GENERIC_PLAN) {text}")


async def test_releases_take_turns(
    begin: Begin, before: ReleaseBefore, journal: JournalFile, database: str
) -> None:
    """Upgraded, taken back, upgraded again: every line is billed once, whichever reads it, and chained."""
    running = [journal.new_id() for _ in range(3)]
    for request_id in running:
        journal.append(journal.opened(request_id))
    journal.request()
    assert 1 == await before.settle()
    for request_id in running:
        service = await begin()
        journal.append(journal.ended(request_id))
        journal.request()
        await service.beat(times=2)
        await service.end()
        journal.append(journal.opened(journal.new_id()))
        journal.request()
        assert 1 == await before.settle()
    journal.start()
    service = await begin()
    await service.beat(times=2)
    rows = await service.rows()
    assert {"completed": 10, "orphaned": 3} == {
        outcome: sum(row["outcome"] == outcome for row in rows) for outcome in ("completed", "orphaned")
    }
    await assert_books_agree(service)
    assert [] == (await verified(database)).faults
    assert (0, 0) == (await service.count("unpublished"), await service.count("open_requests"))
    assert 0 == await service.ledger.fetchval("SELECT sum(lost)::int FROM journal_sequences")


async def assert_books_agree(service: Service) -> None:
    """Every token of the ledger is in each window and each sum once."""
    billed = await service.ledger.fetchval("SELECT sum(input_tokens + output_tokens)::bigint FROM ledger")
    assert set((await service.windows()).values()) == {billed}
    assert billed == await service.ledger.fetchval(
        "SELECT sum(input_tokens + output_tokens)::bigint FROM usage_daily"
    )
    assert billed == await service.used_in_redis("t:t")


async def test_the_schema_goes_back_and_forth(
    begin: Begin, before: ReleaseBefore, journal: JournalFile, database: str
) -> None:
    """With data in every table each migration is taken back and applied again, and the bill stays."""
    service = await begin()
    await fill(service, journal)
    await service.end()
    billed = await books(before.connection)
    journal.append(journal.opened(journal.new_id()))
    journal.request()
    while await latest(service.ledger) > ITS_LAST:
        back(database)
    assert ITS_LAST == await latest(service.ledger)
    assert billed == await books(before.connection)
    await before.connection.reload_schema_state()
    assert 1 == await before.settle()
    migrate(database)
    journal.request()
    again = await begin()
    await again.beat(times=2)
    assert billed[0] + 2 * 30 == (await books(service.ledger))[0]
    await assert_books_agree(again)


async def fill(service: Service, journal: JournalFile) -> None:
    """Something of every kind that metering and commands write, a correction too."""
    await service.ledger.execute("INSERT INTO tenants (id, name) VALUES ($1, 'acme')", TENANT)
    await service.ledger.execute("INSERT INTO keys (id, tenant_id, name) VALUES ($1, $2, 'one')", KEY, TENANT)
    orphan, running = journal.new_id(), journal.new_id()
    journal.append(journal.opened(orphan))
    journal.append(journal.progress((orphan, 90, 360, 40)))
    journal.start()
    journal.append(journal.opened(running))
    journal.append(journal.progress((running, 9, 36, 4)))
    journal.append(b"garbage\n")
    journal.append(journal.ended(journal.new_id(), **STRANGER))
    served = journal.request()
    journal.seq += 5
    journal.request()
    await service.beat(times=2)
    await service.ledger.execute("SELECT credit_request($1, 7, now(), 'an operator', 'a reason')", served)
    await service.beat(times=2)


async def books(connection: asyncpg.Connection) -> list[int]:
    """What is billed, and in the windows."""
    return [
        await connection.fetchval("SELECT sum(input_tokens + output_tokens)::bigint FROM ledger"),
        await connection.fetchval("SELECT sum(used)::bigint FROM budget_windows"),
    ]


async def latest(connection: asyncpg.Connection) -> str:
    """The last migration that the database has."""
    version: str = await connection.fetchval("SELECT max(version) FROM schema_migrations")
    return version


def back(database: str) -> None:
    """Take the last migration back."""
    folder = str(resources.files("sql") / "migrations")
    argv = [str(_dbmate()), "--migrations-dir", folder, "--no-dump-schema", "rollback"]
    (url,) = dbmate_urls(database)
    environ = {**os.environ, "DATABASE_URL": url}
    done = subprocess.run(argv, env=environ, check=False, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr

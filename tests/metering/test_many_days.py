"""With 1,500 days of the ledger nothing that runs every day locks more of them than it is about.

Each is done in a transaction that stays open, so that all the locks it has taken can be counted at its end.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest
from attrs import define

import sql
from authz import settings
from authz.accounts.credits import credit_request, credit_tenant
from authz.accounts.session import Session
from authz.admin.audit import audit
from authz.admin.export import Export, Wanted
from authz.admin.period import Period
from authz.admin.sheets import Format, Output
from authz.admin.statement import statement
from authz.admin.usage import By, usage
from authz.limiter.admission import Reading
from authz.limiter.limiter import Limiter
from authz.snapshot import opened
from authz.stack import embedded
from authz.store import ADMIN_ROLE, AUTHZ_ROLE, METERING_ROLE, Store, prepare
from metering.books import Books
from metering.ledger_store import LedgerStore
from metering.orphans import sweep
from metering.publish import Publisher
from metering.retention import AHEAD_DAYS, prepare_days
from metering.service import Metering
from metering.surroundings import Surroundings
from tests.conftest import TEMPLATE
from tests.metering.writing import KEY, LOOKUP, NODE, TENANT, JournalFile

DAYS: Final = 1500
DAYS_AT_ONCE: Final = 100
"""Making a day locks it: all at once would be more than PostgreSQL has room for."""

LOCKED = r"""
    SELECT count(DISTINCT relation) FROM pg_locks
    WHERE pid = $1 AND relation::regclass::text ~ '^ledger_\d{8}$'
"""


@pytest.fixture(scope="module")
def old(stores: Path) -> Iterator[str]:
    """The URL of a database whose ledger is four years old."""
    asyncio.run(_execute(stores, "CREATE DATABASE old TEMPLATE " + TEMPLATE))
    url = embedded.postgres_url(stores, "old")
    asyncio.run(_make_days(url))
    yield url
    asyncio.run(_execute(stores, "DROP DATABASE old WITH (FORCE)"))


async def _execute(stores: Path, statement: str) -> None:
    connection = await asyncpg.connect(embedded.postgres_url(stores, "postgres"))
    await connection.execute(statement)
    await connection.close()


async def _make_days(url: str) -> None:
    connection = await asyncpg.connect(url)
    for first in range(-AHEAD_DAYS, DAYS, DAYS_AT_ONCE):
        await connection.execute(
            "SELECT ensure_ledger_partition((now() AT TIME ZONE 'UTC')::date - ago)"
            " FROM generate_series($1::int, $2::int) AS ago",
            first,
            min(first + DAYS_AT_ONCE, DAYS + 1) - 1,
        )
    await connection.close()


class KeptStore(Store):
    """Lends one connection, again and again."""

    kept: asyncpg.Connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend it."""
        yield self.kept


@define
class Watched:
    """A session in one open transaction, with a tenant whose request of today is billed."""

    connection: asyncpg.Connection
    session: Session
    journal: JournalFile
    limiter: Limiter
    served: UUID
    now: datetime

    async def act_as(self, role: str) -> None:
        """Go on as a program."""
        await self.connection.execute("RESET ROLE")
        await prepare(self.connection, role)

    async def metering(self) -> Metering:
        """Metering on the journal, its transactions inside of this one."""
        await self.act_as(METERING_ROLE)
        around = Surroundings(self.journal.path, "", "", clock=lambda: self.now)
        ledger = LedgerStore(self.connection)
        return await Metering.begin(NODE, around, ledger=ledger, limiter=self.limiter)

    async def locked(self) -> int:
        """How many days it has locked."""
        await self.connection.execute("RESET ROLE")
        found: int = await self.connection.fetchval(LOCKED, self.connection.get_server_pid())
        return found


@pytest.fixture
async def watched(old: str, redis_url: str, limiter: Limiter, tmp_path: Path) -> AsyncIterator[Watched]:
    """A session that has locked today alone."""
    connection = await asyncpg.connect(old)
    now = (await connection.fetchval("SELECT now()")).astimezone(UTC)
    limiter.clock_us = int(now.timestamp() * 1_000_000)
    # The days ahead are there, also if a month has passed since the others were made.
    ahead = "SELECT ensure_ledger_partition($1::date + days) FROM generate_series(0, $2::int) AS days"
    await connection.execute(ahead, now.date(), AHEAD_DAYS)
    transaction = connection.transaction(isolation="repeatable_read")
    await transaction.start()
    await connection.execute("INSERT INTO tenants (id, name) VALUES ($1, 'acme')", TENANT)
    await connection.execute("INSERT INTO keys (id, tenant_id, name) VALUES ($1, $2, 'one')", KEY, TENANT)
    secret = "INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash) VALUES ($1, $2, $3, 'p', 'h')"
    await connection.execute(secret, LOOKUP, KEY, b"t" * 32)
    path = tmp_path / "journal" / "journal.log"
    journal = JournalFile(path, begun_ms=int(now.timestamp() * 1000) - 60_000)
    journal.start()
    store = KeptStore(old, role=ADMIN_ROLE)
    store.kept = connection
    environ = {"DATABASE_URL": old, "REDIS_URL": redis_url, "GATEWAY_STATE": str(tmp_path)}
    session = Session(settings.load(environ), store, limiter, "tester")
    world = Watched(connection, session, journal, limiter, journal.request(), now)
    metering = await world.metering()
    while await metering.step():
        pass
    metering.close()
    assert 1 == await world.locked()
    yield world
    await transaction.rollback()
    await connection.close()


async def _settle(world: Watched) -> None:
    open_one = world.journal.new_id()
    world.journal.append(world.journal.opened(open_one))
    world.journal.request()
    world.journal.append(world.journal.ended(world.journal.new_id(), outcome="denied", reserved=None))
    metering = await world.metering()
    while await metering.step():
        pass
    world.journal.start()
    world.journal.append(world.journal.ended(open_one))
    while await metering.step():
        pass
    metering.close()


async def _upkeep(world: Watched) -> None:
    await world.act_as(METERING_ROLE)
    ledger = LedgerStore(world.connection)
    await ledger.publish_again([world.served])
    await Publisher(ledger, world.limiter, lambda _step: None).catch_up()
    await sweep(ledger, world.limiter, node=NODE, at=world.now)
    await prepare_days(ledger, world.now.date())


async def _reconcile(world: Watched) -> None:
    await world.act_as(METERING_ROLE)
    books, today = Books(world.connection), world.now.date()
    assert await books.reckon(TENANT, today - timedelta(days=1), today + timedelta(days=1))
    await books.published_totals(TENANT, today, today)


async def _look_for_old_days(world: Watched) -> None:
    queries = sql.load("retention")
    days = [row["day"] async for row in queries.old_days(world.connection, kept=1)]
    kept = (world.now.date() - min(days)).days - 2
    old = [row["day"] async for row in queries.old_days(world.connection, kept=kept)]
    assert 2 == len(old)
    await queries.keep_days(world.connection, days=kept)
    assert await queries.close_day(world.connection, day=old[0])


async def _rebuild(world: Watched) -> None:
    await world.act_as(AUTHZ_ROLE)

    reading = Reading(TENANT, "mark", read_at=world.now, tenant_version=1)
    async with world.connection.transaction(), opened(world.connection, reading) as found:
        closed = [id_ async for batch in found.batches() for id_ in batch.closed]
    assert world.served in closed


async def _credit(world: Watched) -> None:
    await world.act_as(ADMIN_ROLE)
    await credit_request(world.session, world.served, tokens=1, reason="a", at=world.now)
    await credit_tenant(world.session, "acme", prefix=LOOKUP, tokens=1, reason="b", at=world.now)


async def _audit(world: Watched) -> None:
    await world.act_as(ADMIN_ROLE)
    await audit(world.session, since=world.now - timedelta(days=1), tenant=None, prefix=None)


async def _state(world: Watched) -> None:
    await world.act_as(ADMIN_ROLE)
    await statement(world.session, "acme", world.now.date().replace(day=1), world.now)


async def _export(world: Watched) -> None:
    await world.act_as(ADMIN_ROLE)
    period = Period(world.now - timedelta(hours=2))
    export = Export(world.session, Format.JSONL, Output(io.BytesIO()), Wanted(period=period))
    assert [step async for step in export.run()]
    assert export.proof
    assert export.proof.rows


DUTIES: dict[str, tuple[Callable[[Watched], Awaitable[None]], int]] = {
    "settle": (_settle, 2),
    "upkeep": (_upkeep, 2),
    "reconcile": (_reconcile, 5),
    "retention": (_look_for_old_days, 1),
    "rebuild": (_rebuild, 2 + AHEAD_DAYS),
    "credit": (_credit, 5),
    "audit": (_audit, 3 + AHEAD_DAYS),
    "statement": (_state, 33),  # those of its month
    "export": (_export, 2),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("do", "most"), DUTIES.values(), ids=DUTIES)
async def test_few_days_are_locked(
    watched: Watched, do: Callable[[Watched], Awaitable[None]], most: int
) -> None:
    """What it does is about some days around today, and it locks no others."""
    await do(watched)
    assert await watched.locked() <= most


def _periods() -> dict[str, Callable[[datetime], Period]]:
    day = timedelta(days=1)
    return {
        "ever": lambda _now: Period(),
        "since a day": lambda now: Period((now - 1000 * day).date()),
        "until a day": lambda now: Period(date(2000, 1, 1), (now - day).date()),
        "since a moment": lambda now: Period(now - 1000 * day),
        "until a moment": lambda now: Period(None, now - 1000 * day),
        "between moments": lambda now: Period(now - 1000 * day, now - 2 * day),
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("period", _periods().values(), ids=_periods())
@pytest.mark.parametrize("by", By)
async def test_usage_locks_the_days_that_are_cut(
    watched: Watched, by: By, period: Callable[[datetime], Period]
) -> None:
    """However long the period: whole days are sums, and only those at its ends are read."""
    await watched.act_as(ADMIN_ROLE)
    await usage(watched.session, period=period(watched.now), by=[by])
    assert await watched.locked() <= 1 + 2 * 3

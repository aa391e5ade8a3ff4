"""What must not change however old the ledger is: locks, pages, and releases side by side."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from metering import publish
from metering.ledger_store import LedgerStore
from metering.outbox import OutboxRow
from tests.metering.conftest import Begin, Service
from tests.metering.writing import DAY_MS, KEY, TENANT, JournalFile

TABLES = (
    "journal_files",
    "journal_sequences",
    "open_requests",
    "ledger",
    "unpublished",
    "budget_windows",
    "dead_letters",
    "boot_progress",
    "learned_figures",
    "usage_daily",
    "refusals_per_minute",
    "nodes",
)


async def locked_days(service: Service, store: LedgerStore) -> set[str]:
    """The days of the ledger that a session's transaction has locked."""
    rows = await service.ledger.fetch(
        "SELECT DISTINCT relation::regclass::text AS name FROM pg_locks"
        " WHERE pid = $1 AND relation::regclass::text ~ '^ledger_\\d{8}$'",
        store._connection.get_server_pid(),
    )
    return {row["name"] for row in rows}


async def add_days(service: Service, count: int) -> None:
    """Partitions of the days before the journal's first."""
    first = datetime.fromtimestamp(DAY_MS / 1000, UTC).date()
    for ago in range(1, count + 1):
        await service.ledger.execute("SELECT ensure_ledger_partition($1)", first - timedelta(days=ago))


@pytest.mark.timeout(300)
async def test_locks_do_not_grow_with_the_ledger(begin: Begin, journal: JournalFile) -> None:
    """With 1,500 days a batch locks those of its requests, however often its queries were planned."""
    seen: list[set[str]] = []
    service = await begin()
    await add_days(service, 1500)
    store = service.store
    for _ in range(8):
        async with store.transaction():
            ids = [journal.new_id() for _ in range(3)]
            await store.settled(ids)
            await store.orphans_charged(ids)
            await store.in_no_journal(ids)
            await store.publish_again(ids)
            await store.unpublished(publish._START, 10)
            seen.append(await locked_days(service, store))
    assert {"ledger_20261125"} >= set().union(*seen)
    for _ in range(20):
        journal.request()
    await service.drain()
    assert 600 == (await service.windows())[KEY, "total"]


@pytest.mark.parametrize("table", TABLES)
async def test_a_new_column_stops_no_older_release(begin: Begin, journal: JournalFile, table: str) -> None:
    """A schema that is a release ahead, changed while metering runs: it goes on, all is billed."""
    service = await begin()
    journal.request()
    await service.drain()
    await service.ledger.execute(f"ALTER TABLE {table} ADD COLUMN added_later int DEFAULT 7")
    journal.request()
    journal.append(journal.opened(journal.new_id()))
    journal.append(b"garbage\n")
    journal.append(journal.ended(journal.new_id(), tenant=None, key=None, lookup=None, reserved=None))
    await service.beat(times=2)
    await service.end()
    journal.start()
    again = await begin()
    await again.beat(times=2)
    rows = await again.rows()
    assert [30, 30, 36] == sorted(row["input_tokens"] + row["output_tokens"] for row in rows)
    assert 0 == await again.count("unpublished")


async def fill_outbox(service: Service, count: int) -> None:
    """Settlements that Redis does not know yet, all of one tenant."""
    await service.ledger.execute("SELECT ensure_ledger_partition('2026-11-25')")
    await service.ledger.execute(
        "INSERT INTO ledger (request_id, entry, at, node, boot, tenant_id, key_id, day, month, outcome,"
        " input_tokens, output_tokens, usage_source)"
        " SELECT (lpad(to_hex($1::bigint + i), 12, '0') || '70008fff' || lpad(to_hex(i), 12, '0'))::uuid,"
        " 0, now(), gen_random_uuid(), gen_random_uuid(), $2, $3, '2026-11-25', '2026-11-01',"
        " 'completed', 1, 1, 'reported' FROM generate_series(1, $4::int) AS i",
        DAY_MS,
        TENANT,
        KEY,
        count,
    )
    await service.ledger.execute(
        "INSERT INTO unpublished (tenant_id, request_id, entry, key_id)"
        " SELECT tenant_id, request_id, entry, key_id FROM ledger"
    )
    await service.ledger.execute("VACUUM ANALYZE unpublished")
    await service.ledger.execute("VACUUM ANALYZE ledger")


@pytest.mark.timeout(300)
async def test_a_page_of_the_outbox_costs_what_a_page_costs(begin: Begin) -> None:
    """With 200,000 rows waiting a page touches as many blocks as with 5,000, at the end as at the start."""
    service = await begin()
    costs = []
    for count, after in ((5_000, 0), (200_000, 0), (200_000, 190_000)):
        await service.ledger.execute("TRUNCATE ledger, unpublished")
        await fill_outbox(service, count)
        request_id = UUID(int=DAY_MS + after << 80)
        costs.append(await blocks(service, OutboxRow(TENANT, request_id, 0)))
    assert max(costs) <= min(costs) * 2


async def blocks(service: Service, after: OutboxRow) -> int:
    """How many blocks reading a page touches."""
    query = service.store._queries.unpublished.sql
    plan = await service.ledger.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *after, 1000)
    (top,) = json.loads(plan)
    return int(top["Plan"]["Shared Hit Blocks"]) + int(top["Plan"]["Shared Read Blocks"])


@pytest.mark.timeout(300)
async def test_reading_goes_on_while_the_outbox_is_caught_up(begin: Begin, journal: JournalFile) -> None:
    """What waits for Redis holds up neither the next lines nor their publication."""
    service = await begin()
    await fill_outbox(service, 20_000)
    journal.request()
    while await service.metering.step():
        pass
    assert 20_000 == await service.count("unpublished")
    assert 30 == (await service.windows())[KEY, "total"]
    await service.upkeep.round()
    assert 0 == await service.count("unpublished")


@pytest.mark.parametrize("count", [1, 100])
async def test_a_batch_asks_nothing_that_it_need_not_know(
    begin: Begin, journal: JournalFile, count: int
) -> None:
    """However many requests: a statement for each table that changes, and none beside."""
    service = await begin()
    journal.request()
    await service.drain()
    for _ in range(count):
        journal.request()
    asked: list[str] = []
    with service.store._connection.query_logger(lambda query: asked.append(query.query)):
        await service.metering.step()
        await asyncio.sleep(0)  # the last statement is logged in the loop's next turn
    changed = [re.search(r"(INSERT INTO|DELETE FROM) (\w+)", query) for query in asked]
    assert [
        "journal_files",
        "boot_progress",
        "ledger",
        "journal_sequences",
        "usage_daily",
        "budget_windows",
        "learned_figures",
        "unpublished",
    ] == [found[2] for found in changed if found]
    assert 8 + len(["BEGIN", "COMMIT"]) == len(asked)

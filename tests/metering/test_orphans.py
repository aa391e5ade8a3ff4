"""Requests whose record never came, or came late, and reservations no journal knows."""

from __future__ import annotations

from datetime import date, timedelta
from uuid import UUID

import pytest

from authz.limiter import keyspace, wire
from authz.limiter.admission import Admission, Admitted
from authz.limiter.limiter import Limiter
from authz.types import TOTAL_START, Limits, Windows
from tests.metering.conftest import Begin, Service
from tests.metering.writing import KEY, LOOKUP, START, TENANT, TRACE, JournalFile

UNSEEN = 16 + 20  # a prompt of 40 bytes, and a second of a model that nothing is known of
DEADLINE_S = 1800


@pytest.fixture
async def at_noon(limiter: Limiter) -> Limiter:
    """Redis knows the tenant and its key; its clock stands."""
    await limiter.create(TENANT, 1)
    await limiter.raise_versions(TENANT, {None: 1, KEY: 1})
    return limiter


def pass_s(limiter: Limiter, seconds: float) -> None:
    """Let time pass for Redis."""
    limiter.clock_us += int(seconds * 1_000_000)


async def entries(service: Service) -> list[tuple[int, str, int, str]]:
    """The ledger in short."""
    return [
        (row["entry"], row["outcome"], row["input_tokens"] + row["output_tokens"], row["usage_source"])
        for row in await service.rows()
    ]


async def add_tenant(service: Service) -> None:
    """A tenant with a key and a revoked secret."""
    await service.ledger.execute("INSERT INTO tenants (id, name) VALUES ($1, 'acme')", TENANT)
    await service.ledger.execute(
        "INSERT INTO keys (id, tenant_id, name, state) VALUES ($1, $2, 'laptop', 'revoked')", KEY, TENANT
    )
    await service.ledger.execute(
        "INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash) VALUES ($1, $2, $3, 'p', 'h')",
        LOOKUP,
        KEY,
        b"t" * 32,
    )


@pytest.mark.usefixtures("at_noon")
async def test_a_later_boot_charges_what_was_left_open(begin: Begin, journal: JournalFile) -> None:
    """What ran when Caddy was killed is charged as soon as the next Caddy's boot line is read."""
    journal.append(journal.opened(journal.new_id()))
    service = await begin()
    await service.drain()
    assert [] == await entries(service)
    journal.start()
    await service.drain()
    assert [(0, "orphaned", UNSEEN, "progress")] == await entries(service)
    assert UNSEEN == (await service.windows())[KEY, "total"]
    assert UNSEEN == await service.used_in_redis(f"{KEY}:t")
    assert (0, 0) == (await service.count("open_requests"), await service.count("unpublished"))
    (row,) = await service.rows()
    assert ("llama3.2", "gpt-4o", TRACE) == (row["model"], row["model_asked"], row["trace_id"])


@pytest.mark.usefixtures("at_noon")
async def test_an_open_line_and_the_boot_that_ends_it_in_one_batch(
    begin: Begin, journal: JournalFile
) -> None:
    """It does not matter whether they are read together."""
    journal.append(journal.opened(journal.new_id()))
    journal.start()
    service = await begin()
    await service.drain()
    assert [(0, "orphaned", UNSEEN, "progress")] == await entries(service)


@pytest.mark.usefixtures("at_noon")
async def test_an_earlier_boot_line_read_again_charges_nothing(begin: Begin, journal: JournalFile) -> None:
    """A replay of old boot lines does not touch what runs now."""
    journal.start()
    journal.append(journal.opened(journal.new_id()))
    service = await begin()
    await service.drain()
    await service.ledger.execute("DELETE FROM journal_files")
    again = await begin()
    await again.drain()
    assert ([], 1) == (await entries(again), await again.count("open_requests"))


async def test_a_deadline_long_past_at_an_end_of_file_charges_what_is_open(
    begin: Begin, journal: JournalFile, at_noon: Limiter
) -> None:
    """A lost record is given up 60 s after the deadline, by the clock asked before the end was read."""
    journal.append(journal.opened(journal.new_id()))
    service = await begin()
    await service.beat()
    pass_s(at_noon, DEADLINE_S + 60)
    await service.beat()
    assert [] == await entries(service)
    pass_s(at_noon, 1)
    await service.beat()
    assert [(0, "orphaned", UNSEEN, "progress")] == await entries(service)


@pytest.mark.parametrize("used", [30, 300, 700])
@pytest.mark.usefixtures("at_noon")
async def test_a_late_record_becomes_an_adjustment(begin: Begin, journal: JournalFile, used: int) -> None:
    """Whatever came before, the sum of the entries is what the request really cost."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id))
    journal.start()
    service = await begin()
    await service.drain()
    late = journal.ended(request_id, input_tokens=10, output_tokens=used - 10, max_output=None)
    journal.append(late)
    await service.drain()
    expected = [(0, "orphaned", UNSEEN, "progress"), (1, "completed", used - UNSEEN, "reported")]
    assert expected == await entries(service)
    assert used == (await service.windows())[TENANT, "month"]
    assert used == await service.used_in_redis(f"t:{keyspace.window('day', service.day)}")
    journal.append(late)
    await service.drain()
    assert expected == await entries(service)


@pytest.mark.usefixtures("at_noon")
async def test_a_retired_nodes_requests_are_charged(begin: Begin, journal: JournalFile) -> None:
    """What a node left open that never returns is settled by whichever metering lives."""
    service = await begin()
    await service.beat()
    await service.ledger.execute(
        """WITH node AS (
            INSERT INTO nodes (node, boot, retired_at) VALUES (gen_random_uuid(), gen_random_uuid(), now())
            RETURNING node, boot
        )
        INSERT INTO open_requests
            (request_id, node, boot, tenant_id, key_id, reserved_input, reserved_output, day, month, deadline)
        SELECT $1, node, boot, $2, $3, 30, 70, '2026-11-25', '2026-11-01', now() + interval '1 hour'
        FROM node""",
        journal.new_id(),
        TENANT,
        KEY,
    )
    await service.beat(times=40)
    assert 0 == await service.ledger.fetchval("SELECT count(*) FROM open_requests")
    assert 21 == await service.ledger.fetchval(
        "SELECT sum(input_tokens + output_tokens) FROM ledger WHERE usage_source = 'progress'"
    )


async def test_an_adjustment_counts_where_the_orphan_did(begin: Begin, journal: JournalFile) -> None:
    """Whatever windows and owner a late record names, what was charged is taken back where it was."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id))
    journal.start()
    windows = {"day": "2026-12-24", "month": "2026-12"}
    journal.append(journal.ended(request_id, windows=windows))
    service = await begin()
    await service.drain()
    again = journal.new_id()
    journal.append(journal.opened(again))
    journal.start()
    await service.drain()
    journal.append(journal.ended(again, windows=windows))
    await service.drain()
    rows = await service.ledger.fetch("SELECT start, used FROM budget_windows WHERE scope_id = $1", KEY)
    assert {date(2026, 12, 24), date(2026, 12, 1), date(2026, 11, 25), date(2026, 11, 1), TOTAL_START} == {
        row["start"] for row in rows
    }
    assert {30} == {row["used"] for row in rows if row["start"] != TOTAL_START}


@pytest.mark.usefixtures("at_noon")
async def test_a_second_record_of_a_request_changes_nothing(begin: Begin, journal: JournalFile) -> None:
    """Of two records of one request the first counts, in one batch or in two."""
    request_id = journal.request()
    journal.append(journal.ended(request_id, output_tokens=90))
    service = await begin()
    await service.drain()
    journal.append(journal.ended(request_id, output_tokens=95))
    await service.drain()
    assert [(0, "completed", 30, "reported")] == await entries(service)


def admission(request_id: UUID) -> Admission:
    """An admission that holds tokens under a budget."""
    return Admission(
        request_id=request_id,
        tenant=TENANT,
        key=KEY,
        tenant_version=1,
        key_version=1,
        tenant_limits=Limits(tokens_per_day=10_000),
        key_limits=Limits(),
        windows=Windows("2026-11-25", "2026-11"),
        valid_from_us=wire.us(START - timedelta(days=1)),
        valid_until_us=wire.us(START + timedelta(days=1)),
        bound_in=100,
        wanted=200,
        share=0,
        least_share=0,
        estimated_input=100,
        estimated_output=200,
        deadline_s=DEADLINE_S,
    )


async def test_a_reservation_no_journal_knows_is_swept_for_nothing(
    begin: Begin, journal: JournalFile, at_noon: Limiter
) -> None:
    """What was admitted and never opened never ran: it is freed, once every journal is known far enough."""
    service = await begin()
    await add_tenant(service)
    assert isinstance(await at_noon.admit(admission(journal.new_id())), Admitted)
    await service.beat()
    pass_s(at_noon, DEADLINE_S + 70)
    await service.ledger.execute(
        "INSERT INTO nodes (node, boot, eof_at) VALUES (gen_random_uuid(), gen_random_uuid(), $1)", START
    )
    await service.beat(times=40)
    assert ([], 1) == (await entries(service), len(await at_noon.overdue(TENANT, await at_noon.now())))
    await service.ledger.execute("UPDATE nodes SET eof_at = $1", await at_noon.now())
    await service.beat(times=40)
    assert [(0, "swept", 0, "none")] == await entries(service)
    assert () == await at_noon.overdue(TENANT, await at_noon.now())


async def test_a_record_after_its_sweep_is_billed(
    begin: Begin, journal: JournalFile, at_noon: Limiter
) -> None:
    """B1: what was swept at 0 and is read after all, as from a replayed dead letter, costs what it cost."""
    service = await begin()
    await add_tenant(service)
    request_id = journal.new_id()
    assert isinstance(await at_noon.admit(admission(request_id)), Admitted)
    pass_s(at_noon, DEADLINE_S + 70)
    await service.beat(times=40)
    assert [(0, "swept", 0, "none")] == await entries(service)
    journal.append(journal.ended(request_id, input_tokens=10, output_tokens=20, max_output=None))
    await service.drain()
    assert [(0, "swept", 0, "none"), (1, "completed", 30, "reported")] == await entries(service)


async def test_a_reservation_of_what_is_settled_is_settled_again(
    begin: Begin, journal: JournalFile, at_noon: Limiter
) -> None:
    """A Redis that forgot a settlement gets it again."""
    service = await begin()
    await add_tenant(service)
    request_id = journal.request()
    await service.drain()
    await service.redis.delete(keyspace.closed(TENANT))
    assert isinstance(await at_noon.admit(admission(request_id)), Admitted)
    pass_s(at_noon, DEADLINE_S + 70)
    await service.beat(times=40)
    assert () == await at_noon.overdue(TENANT, await at_noon.now())
    assert [(0, "completed", 30, "reported")] == await entries(service)


@pytest.mark.usefixtures("at_noon")
async def test_an_owner_is_found_by_the_handle(begin: Begin, journal: JournalFile) -> None:
    """A record without a key belongs to the key of its handle, revoked or not, and is published."""
    service = await begin()
    await add_tenant(service)
    request_id = journal.new_id()
    journal.append(journal.ended(request_id, outcome="authz_failed", tenant=None, key=None, reserved=None))
    await service.drain()
    (row,) = await service.rows()
    assert (TENANT, KEY, 0) == (row["tenant_id"], row["key_id"], row["input_tokens"])
    assert await service.redis.zscore(keyspace.closed(TENANT), str(request_id)) is not None


@pytest.mark.usefixtures("at_noon")
async def test_nobodys_request_costs_nothing(begin: Begin, journal: JournalFile) -> None:
    """A record of an unknown key is kept, at no cost, and nothing is published."""
    service = await begin()
    journal.append(journal.ended(journal.new_id(), tenant=None, key=None, lookup=None))
    await service.drain()
    (row,) = await service.rows()
    assert (None, 0, "none") == (row["tenant_id"], row["output_tokens"], row["usage_source"])
    assert {} == await service.windows()

"""What a batch leaves in Postgres beside the bill: dead letters, ratios, every field of a record."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

import asyncpg

from metering.lines import Record
from metering.rows import LedgerRow
from metering.tail import CHUNK_BYTES
from tests.metering.conftest import Begin
from tests.metering.writing import DAY_MS, KEY, NODE, TENANT, TRACE, JournalFile

AS_WRITTEN: Final[dict[str, object]] = {
    "seq": 1,
    "trace_id": TRACE,
    "ip": None,
    "lookup": "nz_3bVSxmba",
    "tenant_id": TENANT,
    "key_id": KEY,
    "method": "POST",
    "path": "/api/chat",
    "model": "llama3.2",
    "model_asked": "gpt-4o",
    "backend": "local",
    "tried": "other",
    "sent": True,
    "waited_ms": 8,
    "bound": 30,
    "bound_table": "ab" * 32,
    "stream": True,
    "outcome": "completed",
    "status": 200,
    "upstream_status": 200,
    "reserved_input": 25,
    "reserved_output": 150,
    "day": date(2026, 11, 25),
    "month": date(2026, 11, 1),
    "max_output": 200,
    "terminal": True,
    "reported_input_tokens": 10,
    "reported_output_tokens": 20,
    "deltas": 20,
    "ceiling_input": 100,
    "ceiling_output": 200,
    "text_bytes": 80,
    "tool_bytes": 0,
    "messages": 1,
    "tools": 0,
    "cold": False,
    "tool_bytes_per_token": None,
    "output_bytes": 80,
    "prompt_bytes": 40,
    "ttft_ms": 5,
    "duration_ms": 400,
    "input_tokens": 10,
    "output_tokens": 20,
    "overrun_tokens": 0,
    "usage_source": "reported",
    "at": datetime.fromtimestamp(DAY_MS / 1000, UTC),
    "input_bytes_per_token": None,
    "output_bytes_per_token": None,
    "output_tokens_per_delta": None,
    "output_tokens_per_s": None,
    "actor": None,
}
"""The row of a record as JournalFile.ended writes it, but for its ids."""


async def test_every_field_of_a_record_is_in_the_ledger(begin: Begin, journal: JournalFile) -> None:
    """The ledger is the audit of requests: nothing of a record is left out."""
    request_id = journal.new_id()
    said: dict[str, object] = {
        "reason": "why",
        "cached_tokens": 3,
        "load_ms": 4,
        "prompt_eval_ms": 5,
        "eval_ms": 6,
        "stream_ms": 7,
        "images": 0,
    }
    journal.append(journal.ended(request_id, **said))
    service = await begin()
    await service.drain()
    (row,) = await service.rows()
    expected = (
        AS_WRITTEN
        | said
        | {
            "request_id": request_id,
            "entry": 0,
            "node": NODE,
            "boot": journal.boot,
        }
    )
    found = dict(row)
    assert found.pop("address_id") is not None
    assert found.pop("end_user_id") is None
    assert expected == found


async def test_a_ledger_row_has_the_columns_of_the_table(database: str) -> None:
    """No column is forgotten: each is a field of the row, or the id of one."""
    connection = await asyncpg.connect(database)
    columns = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'ledger'::regclass AND attnum > 0 ORDER BY attnum"
    )
    await connection.close()
    fields = [name for name in LedgerRow._fields if name != "end_user"]
    assert [column["attname"] for column in columns] == [*fields, "address_id", "end_user_id"]


def test_no_field_of_a_record_is_left_out() -> None:
    """Every field that metering reads has a column, under its own name or these."""
    renamed = {
        "id": {"request_id"},
        "tenant": {"tenant_id"},
        "key": {"key_id"},
        "reserved": {"reserved_input", "reserved_output"},
        "ceiling": {"ceiling_input", "ceiling_output"},
        "windows": {"day", "month"},
        "table": {"bound_table"},
        "v": set[str](),
    }
    for name in Record.__struct_fields__:
        assert renamed.get(name, {name}) <= set(LedgerRow._fields), name


async def test_hostile_texts_are_kept_harmless(begin: Begin, journal: JournalFile) -> None:
    """NULs can't be stored and endless texts must not be: the request is billed all the same."""
    journal.append(journal.ended(journal.new_id(), model="a\0b", path="/" + "x" * 5000))
    service = await begin()
    await service.drain()
    (row,) = await service.rows()
    assert ("a\ufffdb", 512, 20) == (row["model"], len(row["path"]), row["output_tokens"])


async def test_dead_letters_are_kept_with_their_place(begin: Begin, journal: JournalFile) -> None:
    """What was not understood is in Postgres in the same transaction, once, however often it is read."""
    start = journal.path.stat().st_size
    journal.append(b"garbage\n")
    request_id = journal.request()
    service = await begin()
    await service.drain()
    await service.ledger.execute("DELETE FROM journal_files")
    again = await begin()
    await again.drain()
    (letter,) = await again.ledger.fetch("SELECT * FROM dead_letters")
    assert (NODE, start, 7, "not_json", b"garbage") == tuple(
        letter[name] for name in ("node", "position", "length", "reason", "raw")
    )
    assert [request_id] == [row["request_id"] for row in await again.rows()]


async def test_a_line_postgres_refuses_costs_only_itself(begin: Begin, journal: JournalFile) -> None:
    """A row that breaks a rule of the schema becomes a dead letter; its batch is settled without it."""
    service = await begin()
    await service.ledger.execute("ALTER TABLE ledger ADD CHECK (deltas <> 13)")
    ids = [journal.request() for _ in range(5)]
    journal.request(deltas=13)
    ids += [journal.request() for _ in range(6)]
    await service.drain()
    assert ids == [row["request_id"] for row in await service.rows()]
    assert ["refused"] == [
        row["reason"] for row in await service.ledger.fetch("SELECT reason FROM dead_letters")
    ]
    assert 30 * len(ids) == (await service.windows())[KEY, "total"]
    ids.append(journal.request())
    await service.drain()
    assert ids == [row["request_id"] for row in await service.rows()]


async def test_a_dead_letter_is_read_again_when_wanted(begin: Begin, journal: JournalFile) -> None:
    """What is understood now is settled and published, what is not stays, and nothing is read unasked."""
    service = await begin()
    await service.ledger.execute("ALTER TABLE ledger ADD CONSTRAINT odd CHECK (deltas <> 13)")
    request_id = journal.request(deltas=13)
    journal.append(b"garbage\n")
    await service.drain()
    await service.ledger.execute("ALTER TABLE ledger DROP CONSTRAINT odd")
    await service.beat(times=6)
    assert [] == await service.rows()
    await service.ledger.execute("UPDATE dead_letters SET is_replay_wanted = true")
    await service.beat(times=6)
    assert [request_id] == [row["request_id"] for row in await service.rows()]
    assert 30 == (await service.windows())[KEY, "total"]
    assert (0, 0) == (await service.count("unpublished"), await service.count("open_requests"))
    letters = await service.ledger.fetch(
        "SELECT reason, is_replay_wanted, replayed_at FROM dead_letters ORDER BY id"
    )
    assert [("refused", False, True), ("not_json", False, False)] == [
        (reason, wanted, at is not None) for reason, wanted, at in letters
    ]


async def test_the_totals_of_many_tenants_are_published(begin: Begin, journal: JournalFile) -> None:
    """One batch of many tenants and keys raises the windows of each."""
    owners = [
        (f"{n:08x}-0000-4000-8000-000000000001", f"{n:08x}-0000-4000-8000-000000000002") for n in range(20)
    ]
    for tenant, key in owners * 3:
        journal.request(tenant=tenant, key=key)
    service = await begin()
    await service.drain()
    assert {90} == set((await service.windows()).values())
    assert 20 * 2 * 3 == await service.count("budget_windows")
    assert 0 == await service.count("unpublished")


async def test_a_request_pays_in_the_windows_of_its_admission(begin: Begin, journal: JournalFile) -> None:
    """What ends after midnight counts for the day it was admitted on."""
    journal.request(windows={"day": "2026-11-30", "month": "2026-11"})
    journal.request(windows={"day": "2026-12-01", "month": "2026-12"})
    service = await begin()
    await service.drain()
    rows = await service.ledger.fetch(
        "SELECT period, start, used FROM budget_windows WHERE scope_id = $1", KEY
    )
    assert {
        ("day", date(2026, 11, 30), 30),
        ("day", date(2026, 12, 1), 30),
        ("month", date(2026, 11, 1), 30),
        ("month", date(2026, 12, 1), 30),
        ("total", date(1970, 1, 1), 60),
    } == {tuple(row) for row in rows}


async def test_a_grant_without_windows_counts_for_its_day(begin: Begin, journal: JournalFile) -> None:
    """Nothing that costs is outside of every window."""
    journal.request(windows=None)
    service = await begin()
    await service.drain()
    assert 30 == (await service.windows())[KEY, "day"]


async def test_requests_of_other_days_find_their_partition(begin: Begin, journal: JournalFile) -> None:
    """The day of the id makes the partition, whatever day it is."""
    for days in (-400, -1, 0, 1, 30):
        request_id = journal.new_id(at_ms=DAY_MS + days * 86_400_000)
        journal.append(journal.ended(request_id))
    service = await begin()
    await service.drain()
    assert 5 == len(await service.rows())


async def test_a_lost_file_is_given_up_once(begin: Begin, journal: JournalFile) -> None:
    """A file that went away unread is finished in Postgres, so that it is missed only once."""
    journal.request()
    service = await begin()
    await service.drain()
    journal.request()
    await service.end()
    journal.rotate().unlink()
    journal.request()
    again = await begin()
    await again.drain()
    unfinished = "SELECT count(*) FROM journal_files WHERE NOT is_finished"
    assert 1 == await again.ledger.fetchval(unfinished)


async def test_an_endless_line_does_not_hold_up_the_end(begin: Begin, journal: JournalFile) -> None:
    """A line of many chunks is got over, and counted as one dead letter."""
    journal.append(b"x" * (3 * CHUNK_BYTES) + b"\n")
    request_id = journal.request()
    service = await begin()
    await service.drain()
    assert [request_id] == [row["request_id"] for row in await service.rows()]
    assert ["too_long"] == [
        row["reason"] for row in await service.ledger.fetch("SELECT reason FROM dead_letters")
    ]


async def test_a_version_a_command_could_not_publish_is_published(begin: Begin, journal: JournalFile) -> None:
    """What is committed and unknown to Redis is published by metering."""
    service = await begin()
    await service.ledger.execute("INSERT INTO tenants (id, name, version) VALUES ($1, 'acme', 7)", TENANT)
    await service.beat()
    assert 7 == await service.ledger.fetchval("SELECT published_version FROM tenants")


async def test_lines_of_the_release_before_have_no_trace(begin: Begin, journal: JournalFile) -> None:
    """A journal that is older than a column is settled all the same: null is what was not said."""
    old = journal.ended(journal.new_id()).replace(f'"trace_id":"{TRACE}",'.encode(), b"")
    assert b"trace" not in old
    journal.append(old)
    service = await begin()
    await service.drain()
    (row,) = await service.rows()
    assert (None, 20) == (row["trace_id"], row["output_tokens"])

"""Refusals: the first of a key and minute one by one, the rest, and those of strangers, counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metering.refusals import KEPT_PER_MINUTE
from tests.metering.conftest import Begin, Service
from tests.metering.writing import DAY_MS, KEY, LOOKUP, TENANT, JournalFile

MINUTE = datetime(2026, 11, 25, 9, 46, tzinfo=UTC)

DENIED: dict[str, object] = {
    "outcome": "denied",
    "reason": "model_not_allowed",
    "status": 403,
    "upstream_status": None,
    "backend": None,
    "reserved": None,
    "windows": None,
    "terminal": False,
    "input_tokens": None,
    "output_tokens": None,
}
STRANGER: dict[str, object] = DENIED | {
    "reason": "key_missing",
    "status": 401,
    "tenant": None,
    "key": None,
    "lookup": None,
}
PROBE = STRANGER | {"outcome": "completed", "reason": None, "status": 200, "path": "/healthz"}


def ask(journal: JournalFile, fields: dict[str, object], *, times: int = 1, after_ms: int = 0) -> None:
    """Records of requests that never ran."""
    for _ in range(times):
        journal.append(journal.ended(journal.new_id(at_ms=DAY_MS + after_ms), **fields))


async def counted(service: Service) -> list[tuple[object, ...]]:
    """What was only counted: minutes after the first, key, source, reason, how often."""
    rows = await service.ledger.fetch(
        "SELECT minute, key_id, text(source) AS source, reason, refusals FROM refusals_per_minute "
        "ORDER BY minute, source, reason"
    )
    return [((row["minute"] - MINUTE) // timedelta(minutes=1), *list(row)[1:]) for row in rows]


async def test_strangers_are_counted_by_source(begin: Begin, journal: JournalFile) -> None:
    """A refusal of an unknown key is no ledger row: it counts by address or /64, minute and reason."""
    for ip in (
        "203.0.113.9",
        "::ffff:203.0.113.9",
        "2001:db8::1",
        "2001:db8:0:0:ffff::2",
        "no address",
        None,
    ):
        ask(journal, STRANGER | {"ip": ip})
    ask(journal, STRANGER | {"reason": "path_unknown"})
    ask(journal, STRANGER | {"lookup": "nz_ZZZZZZZZ", "reason": "key_unknown"}, after_ms=60_000)
    ask(journal, STRANGER | {"outcome": "client_gone", "reason": None}, after_ms=60_000)
    service = await begin()
    await service.drain()
    assert [
        (0, None, "2001:db8::/64", "key_missing", 2),
        (0, None, "203.0.113.9/32", "key_missing", 2),
        (0, None, "203.0.113.9/32", "path_unknown", 1),
        (0, None, None, "key_missing", 2),
        (1, None, "203.0.113.9/32", "client_gone", 1),
        (1, None, "203.0.113.9/32", "key_unknown", 1),
    ] == await counted(service)
    assert [] == await service.rows()


async def test_a_flood_of_strangers_fills_no_table(begin: Begin, journal: JournalFile) -> None:
    """However many come from one source in a minute, in however many batches, they are one row."""
    service = await begin()
    for _ in range(3):
        ask(journal, STRANGER, times=500)
        await service.drain()
    assert [(0, None, "203.0.113.9/32", "key_missing", 1500)] == await counted(service)


async def test_probes_are_nobodys_business(begin: Begin, journal: JournalFile) -> None:
    """A public route that was asked without a key of ours leaves no trace in Postgres."""
    ask(journal, PROBE, times=3)
    ask(journal, PROBE | {"lookup": "nz_ZZZZZZZZ"})
    service = await begin()
    await service.drain()
    assert ([], []) == (await service.rows(), await counted(service))


async def test_a_key_has_sixty_rows_a_minute(begin: Begin, journal: JournalFile) -> None:
    """The first refusals of a minute are logged one by one; the rest counts, across batches and restarts."""
    ask(journal, DENIED, times=KEPT_PER_MINUTE - 5)
    service = await begin()
    await service.drain()
    ask(journal, DENIED, times=10)
    ask(journal, DENIED | {"reason": "rate_limited"}, times=2)
    ask(journal, DENIED, times=7, after_ms=60_000)
    again = await begin()
    await again.drain()
    assert KEPT_PER_MINUTE + 7 == len(await again.rows())
    assert [
        (0, KEY, None, "model_not_allowed", 5),
        (0, KEY, None, "rate_limited", 2),
    ] == await counted(again)
    assert 0 == await again.count("unpublished")


async def test_a_wrong_secret_counts_for_the_key_it_names(begin: Begin, journal: JournalFile) -> None:
    """Guesses at the secret of a known handle are counted for its key, and fill no table either."""
    service = await begin()
    await service.ledger.execute("INSERT INTO tenants (id, name) VALUES ($1, 'acme')", TENANT)
    await service.ledger.execute(
        "INSERT INTO keys (id, tenant_id, name) VALUES ($1, $2, 'first')", KEY, TENANT
    )
    await service.ledger.execute(
        "INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash) VALUES ($1, $2, $3, 'p', 'h')",
        LOOKUP,
        KEY,
        b"t" * 32,
    )
    ask(journal, STRANGER | {"lookup": LOOKUP, "reason": "key_unknown"}, times=KEPT_PER_MINUTE + 4)
    await service.drain()
    assert {KEY} == {row["key_id"] for row in await service.rows()}
    assert [(0, KEY, None, "key_unknown", 4)] == await counted(service)


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "limiter_unavailable", "status": 503},
        {"reason": "overloaded", "status": 503},
        {"outcome": "authz_failed", "reason": "authz_timeout", "status": 504},
        {"outcome": "refused", "reason": "grant_stale", "reserved": {"input": 1, "output": 1}},
        {"outcome": "client_gone", "reason": None},
    ],
    ids=lambda fields: fields["reason"] or fields["outcome"],
)
async def test_what_may_hold_a_reservation_is_always_a_row(
    begin: Begin, journal: JournalFile, fields: dict[str, object]
) -> None:
    """Only a row frees what Redis may have admitted, so these are settled however many there are."""
    ask(journal, DENIED | fields, times=KEPT_PER_MINUTE + 3)
    service = await begin()
    await service.drain()
    assert KEPT_PER_MINUTE + 3 == len(await service.rows())
    assert [] == await counted(service)


async def test_reading_again_adds_no_row(begin: Begin, journal: JournalFile) -> None:
    """B2: the rows of a minute stay the same ones, whatever is replayed."""
    ask(journal, DENIED, times=KEPT_PER_MINUTE + 1)
    service = await begin()
    await service.drain()
    before = await service.rows()
    await service.ledger.execute("DELETE FROM journal_files")
    again = await begin()
    await again.drain()
    assert before == await again.rows()

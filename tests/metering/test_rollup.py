"""The sums that `usage` reads are those of the ledger, whatever happens to requests."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from authz.errors import StoreUnavailable
from metering.rollup import uses
from metering.rows import LedgerRow, Use
from tests.metering.conftest import Begin, Service
from tests.metering.writing import DAY_MS, KEY, NODE, TENANT, JournalFile, uuid7

SUMS = """
    SELECT tenant_id, key_id, sum(input_tokens)::bigint, sum(output_tokens)::bigint, {} FROM {}
    WHERE tenant_id IS NOT NULL GROUP BY 1, 2
"""
IN_LEDGER = SUMS.format("count(*) FILTER (WHERE entry = 0 AND backend IS NOT NULL)", "ledger")
IN_ROLLUP = SUMS.format("sum(requests)::bigint", "usage_daily")


async def books(service: Service) -> list[tuple[object, ...]]:
    """What both say; the test fails if they differ."""
    ledger, rollup = [
        sorted(map(tuple, await service.ledger.fetch(query))) for query in (IN_LEDGER, IN_ROLLUP)
    ]
    assert ledger == rollup
    return rollup


def row(number: int, **fields: Any) -> LedgerRow:
    """A ledger row of a request that was served."""
    at = datetime.fromtimestamp(DAY_MS / 1000, UTC)
    made = LedgerRow(
        request_id=uuid7(DAY_MS, number),
        entry=0,
        at=at,
        node=NODE,
        boot=NODE,
        tenant_id=TENANT,
        key_id=KEY,
        model="llama3.2",
        backend="local",
        input_tokens=1,
        output_tokens=2,
    )
    return made._replace(**fields)


def test_one_model_has_one_row() -> None:
    """Whatever a client calls a model, it is summed up under its canonical name."""
    names = ("llama3.2", "LLAMA3.2:latest", "library/llama3.2")
    rows = [row(number, model=name) for number, name in enumerate(names)]
    assert [Use(date(2026, 11, 25), TENANT, KEY, "llama3.2:latest", 3, 3, 6)] == uses(rows)


def test_what_says_nothing_has_no_row() -> None:
    """A refusal with a name of its own each time must not fill the sums; nor does what has no tenant."""
    refused = row(1, backend=None, model="x", input_tokens=0, output_tokens=0)
    assert [] == uses([refused, row(2, tenant_id=None, key_id=None)])


def test_an_adjustment_is_no_request() -> None:
    """Entry 1 takes tokens back or adds some; the request was counted with entry 0."""
    (use,) = uses([row(1), row(1, entry=1, input_tokens=-5, output_tokens=0)])
    assert (1, -4, 2) == (use.requests, use.input_tokens, use.output_tokens)


def test_days_are_those_of_the_ids() -> None:
    """A day's sums are those of the ledger's partition of that day."""
    rows = [row(1), row(2, request_id=uuid7(DAY_MS + 86_400_000, 2))]
    assert [date(2026, 11, 25), date(2026, 11, 26)] == [use.day for use in uses(rows)]


async def test_the_sums_are_the_ledgers(begin: Begin, journal: JournalFile) -> None:
    """Served, refused, orphaned, late and replayed: after each the sums are the ledger's."""
    service = await begin()
    for _ in range(3):
        journal.request()
    journal.append(journal.ended(journal.new_id(), outcome="denied", reserved=None, backend=None))
    await service.drain()
    assert [(TENANT, KEY, 30, 60, 3)] == await books(service)
    left_open = journal.new_id()
    journal.append(journal.opened(left_open))
    journal.start()
    await service.drain()
    assert [(TENANT, KEY, 46, 80, 4)] == await books(service)
    journal.append(journal.ended(left_open))
    await service.drain()
    assert [(TENANT, KEY, 40, 80, 4)] == await books(service)
    await service.ledger.execute("DELETE FROM journal_files")
    again = await begin()
    await again.drain()
    assert [(TENANT, KEY, 40, 80, 4)] == await books(again)


async def test_the_sums_are_in_the_same_transaction(begin: Begin, journal: JournalFile) -> None:
    """What fails after the ledger was written leaves neither rows nor sums."""

    def die(step: str) -> None:
        if step == "windows_raised":
            raise ConnectionError

    service = await begin(reach=die)
    journal.request()
    with pytest.raises(StoreUnavailable):
        await service.drain()
    assert (0, 0) == (await service.count("ledger"), await service.count("usage_daily"))
    again = await begin()
    await again.drain()
    assert [(TENANT, KEY, 10, 20, 1)] == await books(again)

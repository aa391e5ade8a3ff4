"""Lines of days that were dropped, among others: they alone are set aside."""

from __future__ import annotations

from datetime import date

import pytest
from attrs import asdict, evolve

from metering.journal import Page, refused, understand
from metering.rows import Line
from tests.metering.conftest import Begin, Service
from tests.metering.writing import START, JournalFile

TWO_DAYS_MS = 2 * 86_400_000


async def drop_days_before(service: Service, day: date) -> None:
    """Refuse to bill what is of an earlier day."""
    await service.ledger.execute("UPDATE ledger_retention SET oldest_day = $1", day)


async def test_a_line_that_is_too_old_costs_no_other(begin: Begin, journal: JournalFile) -> None:
    """B4: whatever else is read together with such a line stays, of every kind that there is."""
    service = await begin()
    await drop_days_before(service, service.day)
    request_id = journal.new_id()
    others = [
        journal.line("boot", {}),
        journal.opened(request_id),
        journal.progress((request_id, 5, 20, 0)),
        journal.ended(request_id, deltas=-3),
        b"garbage",
    ]
    page = understand([Line(number, data) for number, data in enumerate(others)])
    assert all(asdict(page, recurse=False).values())
    old = Line(9, journal.ended(journal.new_id(at_ms=journal.begun_ms - TWO_DAYS_MS)))
    lines = [*(Line(number, data) for number, data in enumerate(others)), old]
    kept: Page = await service.metering._settlement.without_too_old(lines, understand(lines), START)
    assert evolve(page, dead=page.dead + refused(old, "too_old").dead) == kept


async def test_nothing_is_lost_beside_a_line_that_is_too_old(
    begin: Begin, journal: JournalFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """B4: progress read together with it is remembered, odd lines are alarmed, only its number is missing."""
    service = await begin()
    await drop_days_before(service, service.day)
    request_id = journal.new_id()
    journal.append(journal.opened(request_id))
    journal.append(journal.progress((request_id, 90, 360, 0)))
    journal.append(journal.ended(journal.new_id(at_ms=journal.begun_ms - TWO_DAYS_MS)))
    journal.append(journal.ended(journal.new_id(), deltas=-3))
    await service.drain()
    assert [[request_id]] == [
        row["ids"] for row in await service.ledger.fetch("SELECT ids FROM boot_progress")
    ]
    assert "metering.line_salvaged" in capsys.readouterr().out
    journal.start()
    await service.drain()
    assert 1 == await service.ledger.fetchval("SELECT sum(lost)::int FROM journal_sequences")

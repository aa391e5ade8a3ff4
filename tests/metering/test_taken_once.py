"""A line is taken once, by its boot and number, however often it is written (B2)."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.sequences import MISSING_RANGES, WINDOW, Sequence
from tests.metering.conftest import Begin
from tests.metering.writing import JournalFile

BOOT = UUID("019ab5bf-0000-7000-8000-0000000000b0")
UNKNOWN_KEY: dict[str, object] = {
    "tenant": None,
    "key": None,
    "outcome": "denied",
    "reason": "key_unknown",
    "status": 401,
    "backend": None,
    "reserved": None,
    "windows": None,
    "lookup": "nz_unknown1",
}


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_a_refusal_that_is_written_twice_counts_once(
    begin: Begin, journal: JournalFile, *, is_one_batch: bool
) -> None:
    """What has no row of its own is recognised by its number alone."""
    service = await begin()
    line = journal.ended(journal.new_id(), **UNKNOWN_KEY)
    journal.append(line)
    if not is_one_batch:
        await service.drain()
        await service.end()
        service = await begin()
    journal.append(line)
    await service.drain()
    assert 1 == await service.ledger.fetchval("SELECT sum(refusals)::int FROM refusals_per_minute")
    assert 0 == await service.ledger.fetchval("SELECT sum(lost)::int FROM journal_sequences")


async def test_lines_of_a_lost_file_may_come_again(begin: Begin, journal: JournalFile) -> None:
    """The new file begins with what was written last, in any order: nothing is billed or opened twice."""
    running = journal.opened(journal.new_id())
    lines = [running, journal.ended(journal.new_id()), journal.ended(journal.new_id())]
    for line in lines:
        journal.append(line)
    service = await begin()
    await service.drain()
    journal.path.unlink()
    journal.resume(last=1)
    for line in reversed(lines):
        journal.append(line)
    await service.drain()
    assert (2, 1) == (len(await service.rows()), await service.count("open_requests"))
    assert 60 == (await service.windows())[journal.key, "total"]
    (row,) = await service.ledger.fetch("SELECT next, ahead, lost FROM journal_sequences")
    assert (5, [], 0) == tuple(row)


async def test_a_line_that_was_given_up_is_billed_when_it_comes(begin: Begin, journal: JournalFile) -> None:
    """A file that was moved out of the folder and back is late, not lost; it stays counted."""
    service = await begin()
    await service.drain()
    late = journal.ended(journal.new_id())
    journal.start(last=journal.seq - 1)
    await service.drain()
    assert 1 == await service.ledger.fetchval("SELECT sum(lost)::int FROM journal_sequences")
    await service.end()
    again = await begin()
    for _ in range(2):
        journal.append(late)
        await again.drain()
    assert 1 == len(await again.rows())
    assert 1 == await again.ledger.fetchval("SELECT sum(lost)::int FROM journal_sequences")


@settings(max_examples=50, deadline=None)
@given(
    seen=st.lists(st.one_of(st.integers(0, 60), st.integers(0, 3 * WINDOW)), max_size=60),
    closed=st.integers(0, 3 * WINDOW),
)
def test_a_number_is_had_if_it_was_seen(seen: list[int], closed: int) -> None:
    """However numbers come and gaps are given up, a number counts as taken once it was seen, never before."""
    sequence, known = Sequence(BOOT), set[int]()
    for number in seen:
        assert (number in known) == sequence.has(number)
        sequence = sequence.advance([number])
        known.add(number)
    for after in (sequence, sequence.close(closed), sequence.end(), sequence.close(closed).end()):
        assert [after.has(number) for number in range(100)] == [number in known for number in range(100)]
        assert all(after.has(number) for number in known)
    after = sequence.close(closed)
    assert {n for n in range(closed + 1) if n not in known} <= {
        n for first, end in after.missing for n in range(first, end)
    }
    assert after.next > closed


def test_gaps_that_are_remembered_are_bounded() -> None:
    """Of a boot that loses every second line, the last gaps are remembered, and all are counted."""
    sequence = Sequence(BOOT)
    for number in range(0, 4 * MISSING_RANGES, 2):
        sequence = sequence.advance([number])
    sequence = sequence.end()
    assert MISSING_RANGES == len(sequence.missing)
    assert 2 * MISSING_RANGES - 1 == sequence.lost

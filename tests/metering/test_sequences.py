"""Line numbers: what is missing is counted, once, and only when it can't come any more (B4)."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metering.sequences import WINDOW, Sequence
from tests.metering.conftest import Begin
from tests.metering.writing import JournalFile

BOOT = UUID("019ab5bf-0000-7000-8000-0000000000b0")
EMPTY = Sequence(BOOT)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], (0, (), 0)),
        ([0], (1, (), 0)),
        ([0, 1, 2, 4], (3, (4,), 0)),
        ([4, 2, 1, 0, 3], (5, (), 0)),
        ([0, 0, 1, 1], (2, (), 0)),
        ([0, WINDOW], (1, (WINDOW,), 0)),
        ([0, WINDOW + 1], (2, (WINDOW + 1,), 1)),
        ([WINDOW - 1], (0, (WINDOW - 1,), 0)),
        ([5, 2**40], (2**40 - WINDOW + 1, (2**40,), 2**40 - WINDOW)),
    ],
)
def test_advance(numbers: list[int], expected: tuple[int, tuple[int, ...], int]) -> None:
    """A gap waits for the window's length, then it is lost."""
    after = EMPTY.advance(numbers)
    assert expected == (after.next, after.ahead, after.lost)


def test_a_gap_is_closed_by_the_line_that_was_missing() -> None:
    """Lines may come out of order."""
    assert Sequence(BOOT, next=5) == EMPTY.advance([0, 1, 2, 4]).advance([3])


def test_the_end_of_a_boot_closes_its_gaps() -> None:
    """After a later boot line no line of an earlier boot comes."""
    assert Sequence(BOOT, next=7, lost=2, missing=((2, 3), (5, 6))) == EMPTY.advance([0, 1, 3, 4, 6]).end()


@settings(max_examples=30, deadline=None)
@given(
    delays=st.lists(st.integers(0, WINDOW - 50), min_size=1, max_size=50),
    missing=st.sets(st.integers(1, 2000), max_size=20),
    size=st.integers(20, 300),
)
def test_every_missing_line_is_counted_once(delays: list[int], missing: set[int], size: int) -> None:
    """However lines are shuffled within the window, cut into batches and replayed, the count is exact."""
    lines = [number for number in range(2500) if number not in missing]
    lines.sort(key=lambda number: number + delays[number % len(delays)])
    sequence = EMPTY
    for start in range(0, len(lines), size):
        sequence = sequence.advance(lines[start : start + size])
        sequence = sequence.advance(lines[max(0, start - size) : start])
    assert len(missing) == sequence.end().lost


async def test_numbers_go_on_from_batch_to_batch(begin: Begin, journal: JournalFile) -> None:
    """A line of a later batch closes the gap of an earlier one."""
    service = await begin()
    late = journal.opened(journal.new_id())
    journal.request()
    await service.drain()
    journal.append(late)
    await service.drain()
    (row,) = await service.ledger.fetch("SELECT next, ahead, lost FROM journal_sequences")
    assert (4, [], 0) == tuple(row)


async def test_a_lost_line_is_counted_in_postgres(begin: Begin, journal: JournalFile) -> None:
    """A number that never came is there to be seen once a later boot is read, and is not forgotten."""
    boot = journal.boot
    journal.request()
    journal.seq += 3
    journal.request()
    service = await begin()
    await service.drain()
    again = await begin()
    journal.start()
    journal.request()
    await again.drain()
    rows = await again.ledger.fetch("SELECT boot, next, lost FROM journal_sequences")
    assert {boot: (8, 3), journal.boot: (3, 0)} == {row["boot"]: (row["next"], row["lost"]) for row in rows}

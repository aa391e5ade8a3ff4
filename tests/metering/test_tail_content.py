"""Following a journal whose files are cut, copied, torn or endless."""

from __future__ import annotations

import os
import sys
import tracemalloc

import pytest

from metering.files import rotated
from metering.tail import CHUNK_BYTES, CHUNK_LINES
from tests.metering.reading import Reader
from tests.metering.writing import JournalFile

if sys.version_info >= (3, 14):
    pass
else:
    pass


@pytest.mark.parametrize("keep", [0, 700])
def test_truncation_is_survived(journal: JournalFile, reader: Reader, keep: int) -> None:
    """A file cut in place is read again from its start; what is new in it is read."""
    journal.request()
    reader.drain()
    os.truncate(journal.path, keep)
    journal.append(b"\n")
    newest = journal.request()
    assert newest in reader.drain()
    reader.restart()
    assert [] == reader.drain()


def test_truncation_that_grew_again_is_noticed(journal: JournalFile, reader: Reader) -> None:
    """A file that was cut and has outgrown the mark does not hold what had been read there."""
    journal.request()
    reader.drain()
    os.truncate(journal.path, 0)
    ids = [journal.request() for _ in range(5)]
    assert ids == reader.drain()


def test_a_hole_of_nuls_is_stepped_over(journal: JournalFile, reader: Reader) -> None:
    """A writer that goes on at its old offset after a truncation leaves a hole, of any size."""
    journal.request()
    reader.drain()
    os.truncate(journal.path, 0)
    os.truncate(journal.path, 3 * CHUNK_BYTES)
    newest = journal.request()
    last = journal.request()
    assert [newest, last] == reader.drain()


@pytest.mark.parametrize("name", ["journal-2020-01-01T00-00-00.000-size.log", "journal-copy.log"])
def test_a_copy_changes_nothing(journal: JournalFile, reader: Reader, name: str) -> None:
    """A copy of the journal's beginning is at most read once more, and the journal is read on."""
    ids = [journal.request() for _ in range(3)]
    reader.drain()
    journal.path.with_name(name).write_bytes(journal.path.read_bytes()[:1000])
    ids.append(journal.request())
    reader.restart()
    reader.drain()
    assert set(ids) == set(reader.ids)
    before = list(reader.ids)
    reader.restart()
    reader.drain()
    assert before == reader.ids


@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.9])
def test_a_copy_that_ends_in_a_line_hides_nothing(journal: JournalFile, reader: Reader, part: float) -> None:
    """A copy read first, cut anywhere, does not make the journal go on in the middle of a line."""
    ids = [journal.request() for _ in range(3)]
    data = journal.path.read_bytes()
    name = "journal-2020-01-01T00-00-00.000-size.log"
    journal.path.with_name(name).write_bytes(data[: int(len(data) * part)])
    reader.drain()
    assert ids == reader.ids
    assert [] == [reason for reason in reader.reasons if reason != "torn"]


def test_files_that_begin_alike_are_told_apart(journal: JournalFile, reader: Reader) -> None:
    """Two files whose first line is the same garbage are two files."""
    ids = []
    for _ in range(3):
        journal.path.write_bytes(b"garbage\n")
        ids.append(journal.request())
        journal.rotate()
    ids.append(journal.request())
    reader.drain()
    assert sorted(ids) == sorted(set(reader.ids))
    reader.restart()
    assert [] == reader.drain()


def test_a_file_that_went_away_unread_is_lost_and_said_to_be(journal: JournalFile, reader: Reader) -> None:
    """A file removed before it was read to its end is named; the others are read."""
    journal.request()
    reader.drain()
    journal.request()
    reader.restart()
    journal.rotate().unlink()
    newest = journal.request()
    assert [newest] == reader.drain()
    assert ["journal.log"] == [mark.name for mark in reader.tail.lost()]


def test_the_last_line_of_a_rotated_file_needs_no_newline(journal: JournalFile, reader: Reader) -> None:
    """A rotated file is final: its last line counts without a newline too, or is torn."""
    whole, torn = journal.new_id(), journal.new_id()
    journal.append(journal.ended(whole).rstrip())
    journal.rotate()
    journal.append(journal.ended(torn)[:80])
    journal.rotate()
    last = journal.request()
    assert [whole, last] == reader.drain()
    assert ["torn"] == reader.reasons


def test_a_torn_line_costs_only_itself(journal: JournalFile, reader: Reader) -> None:
    """After a write that failed half way the next entry is read, glued to it or not."""
    torn = journal.ended(journal.new_id())[:120]
    journal.append(torn)
    first = journal.request()
    journal.append(torn + b"\n")
    second = journal.request()
    assert [first, second] == reader.drain()
    assert ["torn", "not_json"] == reader.reasons


@pytest.mark.parametrize("length", [CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES])
def test_lines_of_any_length_are_got_over(journal: JournalFile, reader: Reader, length: int) -> None:
    """A line too long to read whole is one dead letter; the lines around it are read."""
    first = journal.request()
    journal.append(b"x" * length + b"\n")
    second = journal.request()
    assert [first, second] == reader.drain()
    assert 1 == len(reader.reasons)


def test_a_line_too_long_that_never_ends_is_not_read_again_and_again(
    journal: JournalFile, reader: Reader
) -> None:
    """While a long line grows, only its new bytes are read; the mark stays before it."""
    journal.append(b"x" * (3 * CHUNK_BYTES))
    reader.drain()
    mark = next(iter(reader.marks.values()))
    journal.append(b"x" * CHUNK_BYTES)
    reader.drain()
    assert [mark] == list(reader.marks.values())
    journal.append(b"\n")
    newest = journal.request()
    assert [newest] == reader.drain()
    assert ["too_long"] == reader.reasons


def test_memory_is_bounded_however_far_it_lags(journal: JournalFile, reader: Reader) -> None:
    """A backlog is read in pieces, plain or packed: no more than a few chunks are in memory."""
    line = journal.ended(journal.new_id())
    journal.append(line * (12 * CHUNK_BYTES // len(line)))
    journal.compress(journal.rotate())
    journal.append(b"x" * (12 * CHUNK_BYTES) + b"\n" * 50_000 + line)
    tracemalloc.start()
    while not (chunk := reader.step()) or not chunk.is_end:
        reader.ids.clear()
        assert chunk is None or len(chunk.lines) <= CHUNK_LINES + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * CHUNK_BYTES


def test_only_rotated_files_are_the_journal(journal: JournalFile) -> None:
    """What else lies in the folder is not read: half-compressed files, copies, other journals."""
    old = journal.rotate()
    for name in ("journal.log.gz.tmp", "journal-x.log", f"{old.name}.tmp", f"x{old.name}", "node"):
        journal.path.with_name(name).touch()
    assert [old] == rotated(journal.path)

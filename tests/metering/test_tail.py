"""Following a journal through everything that happens to files."""

from __future__ import annotations

import gzip
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from metering import tail
from metering.files import OpenFile, rotated
from metering.journal import understand
from metering.rows import Mark
from metering.tail import CHUNK_BYTES, CHUNK_LINES, Chunk, Tail
from tests.metering.writing import JournalFile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class Reader:
    """Reads a journal and commits what it reads, in memory."""

    def __init__(self, journal: JournalFile) -> None:
        self.path = journal.path
        self.marks: dict[tuple[bytes, int], Mark] = {}
        self.ids: list[UUID] = []
        self.reasons: list[str] = []
        self.tail = Tail.resume(self.path, [])

    def restart(self) -> None:
        """Begin again from what is committed."""
        self.tail.close()
        self.tail = Tail.resume(self.path, self.marks.values())

    def step(self) -> Chunk | None:
        """Read and commit one chunk."""
        chunk = self.tail.read()
        if chunk is not None and not chunk.is_empty:
            page = understand(chunk.lines)
            self.ids += [ended.record.id for ended in page.ended]
            self.reasons += [letter.reason for letter in page.dead]
            key = chunk.after.fingerprint, chunk.after.generation
            assert self.marks.get(key, Mark(*key, "")).position == chunk.before.position
            self.marks[key] = chunk.after
        return chunk

    def drain(self) -> list[UUID]:
        """Read to the end; answers the ids read by this."""
        known = len(self.ids)
        for _ in range(10_000):
            chunk = self.step()
            if chunk is None or chunk.is_end:
                return self.ids[known:]
        raise AssertionError("the journal has no end")


@pytest.fixture
def reader(journal: JournalFile) -> Iterator[Reader]:
    """A reader of the journal."""
    made = Reader(journal)
    yield made
    made.tail.close()


def test_lines_are_read_once_as_they_come(journal: JournalFile, reader: Reader) -> None:
    """What is appended is read, and nothing is read again."""
    assert [journal.request() for _ in range(3)] == reader.drain()
    assert [] == reader.drain()
    assert [journal.request()] == reader.drain()


def test_half_a_line_waits_for_its_rest(journal: JournalFile, reader: Reader) -> None:
    """Only whole lines are taken; an end of file with half a line is an end of file."""
    request_id = journal.new_id()
    line = journal.ended(request_id)
    journal.append(line[:50])
    assert [] == reader.drain()
    journal.append(line[50:])
    assert [request_id] == reader.drain()
    assert [] == reader.reasons


def test_a_journal_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """Without a file, or with an empty one, there is nothing to read, and no end of file."""
    journal = JournalFile(tmp_path / "later" / "journal.log")
    tail = Tail.resume(journal.path, [])
    assert tail.read() is None
    journal.path.touch()
    assert tail.read() is None
    journal.append(b'{"level":"info",')
    assert tail.read() is None
    journal.append(b"\n")
    chunk = tail.read()
    tail.close()
    assert chunk is not None
    assert 1 == len(chunk.lines)


def test_rotation_is_followed(journal: JournalFile, reader: Reader) -> None:
    """The rest of a rotated file comes before the new one, however many were rotated meanwhile."""
    first = journal.request()
    assert [first] == reader.drain()
    ids = []
    for _ in range(4):
        ids.append(journal.request())
        journal.rotate()
        ids.append(journal.request())
    assert ids == reader.drain()
    assert [True] * 4 == [mark.is_finished for mark in reader.marks.values()][:4]


def test_a_rotation_while_the_folder_is_listed_is_noticed(
    journal: JournalFile, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was rotated after the list was made comes before the one that took its place."""
    ids = [journal.request()]
    has_rotated = False

    def listed(active: Path) -> list[Path]:
        nonlocal has_rotated
        found = rotated(active)
        if not has_rotated:
            has_rotated = True
            journal.rotate()
            ids.append(journal.request())
        return found

    monkeypatch.setattr(tail, "rotated", listed)
    reader.drain()
    assert ids == reader.ids


def test_a_packed_file_is_final_whatever_else_there_is(journal: JournalFile, reader: Reader) -> None:
    """With the newest file packed and no active one, it is read to its end, its last line too."""
    whole = journal.new_id()
    journal.append(journal.ended(whole).rstrip())
    journal.compress(journal.rotate())
    journal.path.unlink()
    reader.drain()
    assert [whole] == reader.ids


def test_a_packed_file_is_not_unpacked_again(
    journal: JournalFile, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart a finished .gz is known by its first line and its length."""
    journal.request()
    journal.compress(journal.rotate())
    reader.drain()
    held: list[Path] = []
    holds = OpenFile.holds

    def holding(file: OpenFile, mark: Mark) -> bool:
        held.append(file.path)
        return holds(file, mark)

    monkeypatch.setattr(OpenFile, "holds", holding)
    reader.restart()
    assert [] == reader.drain()
    assert [] == [path for path in held if path.suffix == ".gz"]


def test_a_finished_file_may_go(journal: JournalFile, reader: Reader) -> None:
    """A file that was read to its end is missed by nobody, compressed, removed or not."""
    journal.request()
    old, older = journal.rotate(), journal.request()
    reader.drain()
    journal.compress(old)
    journal.rotate().unlink()
    newest = journal.request()
    assert [newest] == reader.drain()
    reader.restart()
    assert [] == reader.drain()
    assert () == reader.tail.lost()
    assert older in reader.ids


def test_an_open_file_may_be_removed(journal: JournalFile, reader: Reader) -> None:
    """A file that was removed while it was read is read to its end."""
    journal.request()
    reader.drain()
    rest = journal.request()
    journal.rotate().unlink()
    newest = journal.request()
    assert [rest, newest] == reader.drain()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_missed_files_are_read_packed_or_not(journal: JournalFile, reader: Reader, suffix: str) -> None:
    """What was rotated and compressed while nobody read is read on from the mark, oldest first."""
    ids = [journal.request() for _ in range(10)]
    reader.drain()
    ids += [journal.request() for _ in range(CHUNK_LINES)]
    olds = [journal.rotate()]
    ids += [journal.request() for _ in range(3)]
    olds.append(journal.rotate())
    ids.append(journal.request())
    for old in olds if suffix else ():
        pack = gzip.compress if suffix == ".gz" else zstd.compress
        old.with_name(old.name + suffix).write_bytes(pack(old.read_bytes()))
        old.unlink()
    reader.restart()
    reader.drain()
    assert ids == reader.ids
    reader.restart()
    assert [] == reader.drain()


def test_a_file_and_its_packed_twin_are_one(journal: JournalFile, reader: Reader) -> None:
    """Before Caddy removes what it has compressed there are both: one is read."""
    ids = [journal.request() for _ in range(3)]
    old = journal.rotate()
    old.with_name(old.name + ".gz").write_bytes(gzip.compress(old.read_bytes()))
    ids.append(journal.request())
    reader.drain()
    assert ids == reader.ids


def test_a_packed_file_that_is_cut_short_is_read_as_far_as_it_goes(
    journal: JournalFile, reader: Reader
) -> None:
    """A broken archive ends where it breaks; the files after it are read."""
    ids = [journal.request() for _ in range(500)]
    packed = journal.compress(journal.rotate())
    packed.write_bytes(packed.read_bytes()[:-2000])
    ids.append(journal.request())
    read = reader.drain()
    assert ids[-1] == read[-1]
    assert ids[: len(read) - 1] == read[:-1]
    assert ["torn"] == reader.reasons


def test_a_file_renamed_by_hand_stays_the_journal(journal: JournalFile, reader: Reader) -> None:
    """Caddy writes on to a file that was moved away, until it opens a new one."""
    ids = [journal.request()]
    reader.drain()
    moved = journal.path.rename(journal.path.with_name("elsewhere.log"))
    with moved.open("ab") as caddy:
        ids.append(journal.new_id())
        caddy.write(journal.ended(ids[-1]))
        caddy.flush()
        assert ids[-1:] == reader.drain()
        ids.append(journal.new_id())
        caddy.write(journal.ended(ids[-1]))
    ids.append(journal.request())
    reader.drain()
    assert ids == reader.ids


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

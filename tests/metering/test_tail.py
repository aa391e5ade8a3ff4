"""Following a journal through rotations, renames and packing."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metering import tail
from metering.files import OpenFile, rotated
from metering.rows import Mark
from metering.tail import CHUNK_LINES, Tail
from tests.metering.reading import Reader
from tests.metering.writing import JournalFile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


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
    """A file that was read to its end is not missed, compressed, removed or not."""
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
    """What was rotated and compressed while no metering ran is read on from the mark, oldest first."""
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


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_not_read(
    journal: JournalFile, reader: Reader, make: Callable[[Path], None]
) -> None:
    """A folder or a pipe with the name of a rotated journal keeps no line from being read."""
    make(journal.path.with_name("journal-2026-11-24T00-00-00.000-size.log"))
    request_id = journal.request()
    assert [request_id] == reader.drain()

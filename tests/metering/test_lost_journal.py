"""A journal that is removed, moved or cut by hand: what can be read is billed, the rest is counted (B4)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from authz.limiter.limiter import Limiter
from authz.nodes import LAG_MS
from metering.files import older
from metering.journal import understand
from metering.rows import Line
from metering.tail import Tail
from tests.metering.conftest import Begin, Service
from tests.metering.writing import NODE, JournalFile

GOLDEN = Path(__file__).parents[2] / "caddy" / "testdata" / "contract"


async def _lost(service: Service) -> int:
    lost: int = await service.ledger.fetchval("SELECT sum(lost)::int FROM journal_sequences")
    return lost


async def test_a_journal_that_is_not_at_its_path_is_not_vouched_for(
    begin: Begin, journal: JournalFile, limiter: Limiter
) -> None:
    """Whatever was read before: as long as there is no file, budgets are closed; then it is read on."""
    before = journal.request()
    service = await begin()
    await service.beat()
    assert 0 == await limiter.lag_ms(NODE)
    journal.path.unlink()
    await service.beat()
    assert (await limiter.lag_ms(NODE) or 0) > LAG_MS
    journal.resume(last=2)
    after = journal.request()
    await service.beat(2)
    assert 0 == await limiter.lag_ms(NODE)
    assert [before, after] == [row["request_id"] for row in await service.rows()]
    assert 0 == await _lost(service)


async def test_no_end_is_known_of_a_journal_that_is_not_at_its_path(
    begin: Begin, journal: JournalFile, limiter: Limiter
) -> None:
    """A file that was removed while it was open is read, but its end is not the journal's."""
    service = await begin()
    await service.beat()
    journal.request()
    journal.path.unlink()
    limiter.clock_us += 5_000_000
    eof_at = await service.ledger.fetchval("SELECT eof_at FROM nodes")
    await service.beat(3)
    assert 1 == len(await service.rows())
    assert eof_at == await service.ledger.fetchval("SELECT eof_at FROM nodes")


async def test_a_folder_that_went_away_is_not_vouched_for(
    begin: Begin, journal: JournalFile, limiter: Limiter
) -> None:
    """Without its folder there is no journal either."""
    service = await begin()
    await service.beat()
    shutil.rmtree(journal.path.parent)
    await service.beat(2)
    assert (await limiter.lag_ms(NODE) or 0) > LAG_MS


async def test_lines_that_were_removed_unread_are_counted_at_once(begin: Begin, journal: JournalFile) -> None:
    """The first line of the new file says how many there were; what comes after it is billed."""
    service = await begin()
    await service.drain()
    await service.end()
    journal.request()
    last = journal.seq - 1
    journal.path.unlink()
    journal.resume(last=last)
    journal.request()
    again = await begin()
    await again.drain()
    assert 2 == await _lost(again)
    assert 1 == len(await again.rows())


@pytest.mark.parametrize("was_seen", [True, False])
async def test_the_tail_of_a_process_is_counted_by_the_next(
    begin: Begin, journal: JournalFile, *, was_seen: bool
) -> None:
    """A boot line says where the process before it ended, whether any line of that is known or not."""
    service = await begin()
    await service.drain()
    if not was_seen:
        journal.start()
    journal.request()
    last = journal.seq - 1
    journal.path.unlink()
    journal.start(last=last)
    await service.end()
    again = await begin()
    await again.drain()
    assert (2 if was_seen else 3) == await _lost(again)


async def test_what_an_earlier_metering_read_is_not_lost(begin: Begin, journal: JournalFile) -> None:
    """A new database knows nothing of the processes before the first one it reads of."""
    journal.request()
    last = journal.seq - 1
    journal.path.unlink()
    journal.start(last=last)
    service = await begin()
    await service.drain()
    assert 0 == await _lost(service)


@pytest.mark.parametrize("name", ["journal.log.old", "a", "journal.log.1", "journal-x.log"])
async def test_a_moved_journal_is_read_under_any_name(begin: Begin, journal: JournalFile, name: str) -> None:
    """Metering knows a file by its first line: one that was moved in its folder is read to its end."""
    ids = [journal.request()]
    service = await begin()
    await service.drain()
    await service.end()
    ids.append(journal.request())
    journal.path.rename(journal.path.with_name(name))
    journal.resume(last=journal.seq - 1)
    ids.append(journal.request())
    again = await begin()
    await again.drain()
    assert ids == [row["request_id"] for row in await again.rows()]
    assert 0 == await _lost(again)
    assert 0 == await again.count("dead_letters")


def test_a_moved_file_is_read_between_the_rotated_ones(journal: JournalFile) -> None:
    """It is as old as its last line."""
    old = journal.rotate()
    moved, newer = old.with_name("moved"), old.with_name("journal-2026-11-25T00-00-09.000-size.log")
    moved.write_bytes(b"x")
    newer.write_bytes(b"x")
    os.utime(moved, (1_795_564_804, 1_795_564_804))  # 2026-11-25T00:00:04Z
    assert [old, moved, newer] == older(journal.path)


def test_other_files_are_no_journal(journal: JournalFile) -> None:
    """A file of another node, of other lines, or that can't be read is passed by, and never read."""
    line = journal.path.read_bytes()
    for name, data in {
        "other-node": line.replace(str(NODE).encode(), b"7c9e6679-7425-40de-944b-e07fc1f90ae8"),
        "text": b"some text\n" + line,
        "journal.log.tmp": line,
        "empty": b"",
    }.items():
        journal.path.with_name(name).write_bytes(data)
    tail = Tail.resume(journal.path, [])
    chunk = tail.read()
    tail.close()
    assert chunk is not None
    assert [line.rstrip()] == [read.data for read in chunk.lines]
    assert chunk.is_end


def test_a_moved_file_is_never_removed(journal: JournalFile) -> None:
    """What an operator has named is the operator's."""
    journal.request()
    moved = journal.path.rename(journal.path.with_name("kept"))
    journal.request()
    tail = Tail.resume(journal.path, [])
    while (chunk := tail.read()) is not None and not chunk.is_end:
        pass
    finished: list[Path] = tail.finished()
    tail.close()
    assert moved not in finished


def test_a_resumed_journal_is_read_as_caddy_writes_it() -> None:
    """The first line of a new file is a boot line of the same process, with a number of its own."""
    line = (GOLDEN / "boot-resumed.json").read_bytes().strip()
    (boot,) = understand([Line(0, line)]).boots
    assert boot.previous is not None
    assert (3, boot.boot, 2) == (boot.seq, boot.previous.boot, boot.previous.seq)

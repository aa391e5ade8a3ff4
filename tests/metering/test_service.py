"""The loop on a real journal, a real Postgres and a real Redis: nothing is lost, nothing is doubled."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from authz.limiter import keyspace
from authz.limiter.limiter import Limiter
from metering import tail
from metering.settle import MarkMovedError
from tests.metering.conftest import Begin
from tests.metering.writing import DAY_MS, KEY, NODE, TENANT, JournalFile
from tests.redis_cluster import on_both

STEPS = ["mark_moved", "ledger_written", "windows_raised", "committed", "settled", "published"]


class Killed(BaseException):
    """The process has ended; nothing catches this."""


def killer(step: str, times: int) -> Callable[[str], None]:
    """A reach that kills at a step the first few times it gets there."""
    left = times

    def reach(name: str) -> None:
        nonlocal left
        if name == step and left:
            left -= 1
            raise Killed

    return reach


async def test_a_request_is_billed_what_the_backend_reported(begin: Begin, journal: JournalFile) -> None:
    """A record becomes one ledger row and six windows, and nothing stays open or unpublished."""
    journal.request()
    service = await begin()
    await service.drain()
    rows = await service.rows()
    assert [(10, 20, "reported")] == [
        (row["input_tokens"], row["output_tokens"], row["usage_source"]) for row in rows
    ]
    assert {(scope, period): 30 for scope in (TENANT, KEY) for period in ("day", "month", "total")} == (
        await service.windows()
    )
    assert (0, 0) == (await service.count("open_requests"), await service.count("unpublished"))


@on_both
async def test_redis_learns_the_totals(begin: Begin, journal: JournalFile, limiter: Limiter) -> None:
    """After a batch Redis holds the absolute totals of tenant and key."""
    await limiter.create(TENANT, 1)
    for _ in range(3):
        journal.request()
    service = await begin()
    await service.drain()
    assert 90 == await service.used_in_redis(f"t:{keyspace.window('month', service.day)}")
    assert 90 == await service.used_in_redis(f"{KEY}:t")


async def test_what_has_begun_is_open_until_its_record_comes(begin: Begin, journal: JournalFile) -> None:
    """An open line makes an open row, its record ends it, in another batch too."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id))
    service = await begin()
    await service.drain()
    assert 1 == await service.count("open_requests")
    journal.append(journal.ended(request_id))
    await service.drain()
    assert (0, 1) == (await service.count("open_requests"), len(await service.rows()))


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_between_two_steps_loses_and_doubles_nothing(
    begin: Begin, journal: JournalFile, limiter: Limiter, step: str
) -> None:
    """Whatever metering dies between, the next one bills each request once and publishes all to Redis."""
    await limiter.create(TENANT, 1)
    ids = {journal.request() for _ in range(5)}
    dying = await begin(killer(step, 1))
    with pytest.raises(Killed):
        await dying.drain()
    await dying.end()
    ids |= {journal.request() for _ in range(5)}
    service = await begin()
    await service.drain()
    assert ids == {row["request_id"] for row in await service.rows()}
    assert 300 == (await service.windows())[KEY, "total"]
    assert 300 == await service.used_in_redis(f"{KEY}:t")
    assert 0 == await service.count("unpublished")


async def test_a_replay_of_the_whole_journal_adds_nothing(begin: Begin, journal: JournalFile) -> None:
    """Lines read again, after the marks were lost, change no row and no window."""
    for _ in range(20):
        journal.request()
    service = await begin()
    await service.drain()
    before = (await service.rows(), await service.windows())
    await service.ledger.execute("DELETE FROM journal_files")
    again = await begin()
    await again.drain()
    assert before == (await again.rows(), await again.windows())
    assert 0 == await again.count("open_requests")


async def test_only_one_process_commits_a_line(begin: Begin, journal: JournalFile) -> None:
    """Who finds the mark moved stands back before anything is written."""
    first, second = await begin(), await begin()
    journal.request()
    await first.drain()
    reached: list[str] = []
    second.metering._settlement._reach = reached.append
    with pytest.raises(MarkMovedError):
        await second.drain()
    assert [] == reached


async def test_an_open_line_read_again_opens_nothing(begin: Begin, journal: JournalFile) -> None:
    """What the ledger knows the end of is not open, whatever is read once more."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id))
    length = journal.path.stat().st_size
    journal.append(journal.ended(request_id))
    service = await begin()
    await service.drain()
    os.truncate(journal.path, length)
    await service.drain()
    assert (0, 1) == (await service.count("open_requests"), len(await service.rows()))


async def test_an_earlier_boot_or_end_takes_nothing_back(
    begin: Begin, journal: JournalFile, limiter: Limiter
) -> None:
    """A node's boot and its known end of file only ever rise, whoever commits last."""
    old = journal.path.read_bytes()
    journal.start()
    service = await begin()
    await service.drain()
    limiter.clock_us -= 5_000_000
    journal.append(old)
    await service.beat()
    (row,) = await service.ledger.fetch("SELECT boot, eof_at FROM nodes")
    assert (journal.boot, DAY_MS / 1000) == (row["boot"], row["eof_at"].timestamp())


async def test_a_journal_that_is_not_read_to_its_end_lags(
    begin: Begin, journal: JournalFile, limiter: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the end is reached the lag grows, and the end that is committed is the one asked for first."""
    service = await begin()
    await service.drain()
    monkeypatch.setattr(tail, "CHUNK_LINES", 1)
    for _ in range(5):
        journal.request()
    for _ in range(3):
        service.clock.seconds += 1
        limiter.clock_us += 1_000_000
        await service.metering.step()
    assert 3000 == await limiter.lag_ms(NODE)
    await service.drain()
    eof_at = await service.ledger.fetchval("SELECT eof_at FROM nodes")
    assert DAY_MS / 1000 + 1 == eof_at.timestamp()
    assert 0 == await limiter.lag_ms(NODE)


async def test_a_committed_boot_line_makes_its_node_known(begin: Begin, journal: JournalFile) -> None:
    """The node's row says its boot and how far, by Redis's clock, its journal is known."""
    service = await begin()
    await service.drain()
    (row,) = await service.ledger.fetch("SELECT node, boot, eof_at FROM nodes")
    assert (NODE, journal.boot) == (row["node"], row["boot"])
    assert row["eof_at"] is not None


@on_both
async def test_metering_vouches_at_the_end_of_the_journal(
    begin: Begin, journal: JournalFile, limiter: Limiter
) -> None:
    """At an end of file Redis learns that this node's metering lives and is not behind."""
    journal.request()
    service = await begin()
    await service.drain()
    lag_ms = await limiter.lag_ms(NODE)
    assert lag_ms is not None
    assert lag_ms < 1000

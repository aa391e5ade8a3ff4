"""Requests whose Caddy was killed pay what their last progress line says."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.metering.conftest import Begin, Service
from tests.metering.writing import JournalFile, uuid7

PROMPT = 16
SECOND = 20
"""The tokens of a prompt of 40 bytes, and of a second of a model that nothing is known of."""


async def charged(service: Service) -> dict[UUID, tuple[int, int]]:
    """The tokens of each orphan."""
    return {
        row["request_id"]: (row["input_tokens"], row["output_tokens"])
        for row in await service.rows()
        if row["outcome"] == "orphaned"
    }


async def test_the_last_progress_line_counts(begin: Begin, journal: JournalFile) -> None:
    """Of several lines the last one counts for each stream, whether they are read together or not."""
    moving, still, silent = (journal.new_id() for _ in range(3))
    for request_id in (moving, still, silent):
        journal.append(journal.opened(request_id))
    journal.append(journal.progress((moving, 5, 20, 0), (still, 30, 120, 0)))
    journal.append(journal.progress((moving, 60, 240, 0)))
    service = await begin()
    await service.drain()
    journal.append(journal.progress((moving, 90, 360, 40)))
    await service.drain()
    journal.boot = UUID(int=journal.boot.int + (60_000 << 80))
    journal.start()
    await service.drain()
    assert {
        moving: (PROMPT, 90 + 40 // 4 + SECOND),
        still: (PROMPT, 30 + SECOND),
        silent: (PROMPT, SECOND),
    } == await charged(service)
    assert 1 == await service.count("boot_progress")  # of the Caddy that lives


@pytest.mark.parametrize(("ms", "tokens"), [(50, 1), (250, 5), (1000, SECOND), (5000, SECOND)])
async def test_a_quick_restart_leaves_little_unseen(
    begin: Begin, journal: JournalFile, ms: int, tokens: int
) -> None:
    """A stream has not run longer than until the next Caddy started, nor a second beyond its last line."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id))
    journal.append(journal.progress((request_id, 50, 200, 0)))
    journal.boot = uuid7(journal.begun_ms + ms - 1, 1 << 40)
    journal.start()
    service = await begin()
    await service.drain()
    assert {request_id: (PROMPT, 50 + tokens)} == await charged(service)


async def test_a_single_answer_pays_for_its_time(begin: Begin, journal: JournalFile) -> None:
    """It has no progress: what can have been produced until the last line of its Caddy counts."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id, stream=False))
    journal.begun_ms += 4_006  # of which 5 ms are the prompt's
    journal.append(journal.ended(journal.new_id()))
    journal.begun_ms += 3_600_000
    journal.start()
    service = await begin()
    await service.drain()
    assert {request_id: (PROMPT, 4 * SECOND * 3 // 4)} == await charged(service)


async def test_what_waited_for_a_slot_costs_nothing(begin: Begin, journal: JournalFile) -> None:
    """One that still waits for a slot when its Caddy dies never ran; one that a progress line names did."""
    waiting, running = (journal.new_id() for _ in range(2))
    for request_id in (waiting, running):
        journal.append(journal.opened(request_id, queued=True))
    journal.append(journal.progress((running, 0, 0, 0)))
    journal.start()
    service = await begin()
    await service.drain()
    assert {waiting: (0, 0), running: (PROMPT, 1)} == await charged(service)


async def test_what_had_waited_pays_from_its_start(begin: Begin, journal: JournalFile) -> None:
    """A single answer that got its slot after a while pays the time since then, when its Caddy dies."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id, stream=False, queued=True))
    for waited_ms in (20_000, 5_000):  # the first says when it started
        journal.begun_ms += waited_ms
        journal.append(journal.progress((request_id, 0, 0, 0)))
        journal.append(journal.ended(journal.new_id()))
    journal.begun_ms += 3_600_000
    journal.start()
    service = await begin()
    await service.drain()
    ((prompt, output),) = (await charged(service)).values()
    assert PROMPT == prompt
    assert 3 * SECOND <= output <= 6 * SECOND


async def test_what_is_reckoned_never_passes_the_ceiling(begin: Begin, journal: JournalFile) -> None:
    """The client's number is a wish; the ceiling of the Grant bounds a guess."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id, ceiling={"input": 5, "output": 7}))
    journal.start()
    service = await begin()
    await service.drain()
    assert {request_id: (5, 7)} == await charged(service)


async def test_an_orphan_is_a_request_of_its_model(begin: Begin, journal: JournalFile) -> None:
    """It counts as one request; its late record corrects the same model, and nothing below 0."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id))
    journal.append(journal.progress((request_id, 90, 360, 0)))
    journal.start()
    service = await begin()
    await service.drain()
    journal.append(journal.ended(request_id))
    await service.drain()
    rows = await service.ledger.fetch("SELECT model, requests, input_tokens, output_tokens FROM usage_daily")
    assert [("llama3.2:latest", 1, 10, 20)] == [tuple(row) for row in rows]


async def test_ended_streams_are_forgotten(begin: Begin, journal: JournalFile) -> None:
    """The row of a Caddy process holds what runs, however long the process lives."""
    ended, running = journal.new_id(), journal.new_id()
    for request_id in (ended, running):
        journal.append(journal.opened(request_id))
    journal.append(journal.progress((ended, 5, 20, 0), (running, 5, 20, 0)))
    journal.append(journal.ended(ended))
    service = await begin()
    await service.drain()
    assert [[running]] == [row["ids"] for row in await service.ledger.fetch("SELECT ids FROM boot_progress")]

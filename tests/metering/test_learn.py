"""Figures learned from answers that report their usage: what they teach, and for which prices."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.metering.conftest import Begin, Service
from tests.metering.writing import JournalFile

CUT: dict[str, object] = {
    "terminal": False,
    "input_tokens": None,
    "output_tokens": None,
    "outcome": "client_gone",
}
DENSE: dict[str, object] = {"prompt_bytes": 400, "input_tokens": 400}


async def row_of(service: Service, request_id: UUID) -> dict[str, Any]:
    """The ledger's row of a request."""
    await service.drain()
    return next(dict(row) for row in await service.rows() if row["request_id"] == request_id)


async def test_answers_that_were_heard_out_price_those_that_were_cut(
    begin: Begin, journal: JournalFile
) -> None:
    """The figures of the key count, by the model's canonical name, and are kept with the row."""
    service = await begin()
    for _ in range(200):
        journal.request(
            **DENSE
            | {"output_tokens": 50, "deltas": 25, "text_bytes": 100, "output_bytes": 100, "eval_ms": 500}
        )
    await service.drain()
    cut = CUT | {"model": "LLAMA3.2:latest", "prompt_bytes": 30, "deltas": 5}
    row = await row_of(service, journal.request(**cut))
    assert (30, 10, "counted") == (row["input_tokens"], row["output_tokens"], row["usage_source"])
    assert [1.0, 2.0, 2.0, 100.0] == [
        pytest.approx(row[name], rel=0.02)
        for name in (
            "input_bytes_per_token",
            "output_bytes_per_token",
            "output_tokens_per_delta",
            "output_tokens_per_s",
        )
    ]


async def test_tool_calls_teach_the_price_of_tool_calls(begin: Begin, journal: JournalFile) -> None:
    """A tool call is counted by its bytes, at what the key's calls have shown; text stays what it was."""
    service = await begin()
    for _ in range(20):
        journal.request(output_tokens=60, deltas=10, text_bytes=40, tool_bytes=100, output_bytes=140)
    await service.drain()
    row = await row_of(service, journal.request(**CUT | {"deltas": 0, "text_bytes": 0, "tool_bytes": 200}))
    assert 100 == pytest.approx(row["output_tokens"], rel=0.02)
    row = await row_of(service, journal.request(**CUT | {"deltas": 10}))
    assert 10 == row["output_tokens"]


async def test_text_before_a_tool_call_is_no_part_of_its_price(begin: Begin, journal: JournalFile) -> None:
    """Text of several tokens a frame is separated from the call behind it by what such frames have shown."""
    service = await begin()
    for _ in range(40):
        journal.request(output_tokens=30, deltas=10, text_bytes=120, output_bytes=120)
    await service.drain()
    for _ in range(40):
        journal.request(output_tokens=80, deltas=10, text_bytes=120, tool_bytes=100, output_bytes=220)
    await service.drain()
    row = await row_of(service, journal.request(**CUT | {"deltas": 0, "text_bytes": 0, "tool_bytes": 200}))
    assert 100 == pytest.approx(row["output_tokens"], rel=0.03)


async def test_embeddings_that_report_price_those_that_do_not(begin: Begin, journal: JournalFile) -> None:
    """The same text costs the same on /api/embed and on /api/embeddings."""
    service = await begin()
    text: dict[str, object] = {"prompt_bytes": 900, "stream": False, "deltas": 0, "text_bytes": 0}
    text |= {"output_bytes": 0, "output_tokens": None, "ceiling": {"input": 900, "output": 0}}
    for _ in range(3):
        journal.request(path="/api/embed", input_tokens=450, **text)
    await service.drain()
    row = await row_of(service, journal.request(path="/api/embeddings", input_tokens=None, **text))
    assert 450 == pytest.approx(row["input_tokens"], rel=0.01)


async def test_one_fast_answer_is_not_a_speed(begin: Begin, journal: JournalFile) -> None:
    """A rate is all tokens over all time: an answer of a moment moves it by its weight."""
    service = await begin()
    for _ in range(50):
        journal.request(output_tokens=50, eval_ms=1000)
    journal.request(output_tokens=64, eval_ms=1)
    await service.drain()
    row = await row_of(service, journal.request(**CUT))
    assert 51 == pytest.approx(row["output_tokens_per_s"], rel=0.02)


@pytest.mark.parametrize(("others", "own"), [(2000, 25), (2000, 400), (5, 25), (25, 400)])
async def test_own_speed_counts_whatever_others_have_shown(
    begin: Begin, journal: JournalFile, others: int, own: int
) -> None:
    """B1: after 80 tokens of its own a key pays 5 % more than its speed at most, and half of it at least."""
    for _ in range(3):
        journal.tenant, journal.key = uuid4(), uuid4()
        for _ in range(50):
            journal.request(output_tokens=50, eval_ms=50_000 // others)
    journal.tenant, journal.key = uuid4(), uuid4()
    for _ in range(4):
        journal.request(output_tokens=20, eval_ms=20_000 // own)
    service = await begin()
    await service.drain()
    row = await row_of(service, journal.request(**CUT))
    assert own / 2 <= row["output_tokens_per_s"] <= own * 1.05


@pytest.mark.parametrize(("others", "own"), [(2, 1), (1, 4), (4, 1), (1, 2)])
async def test_own_frames_count_whatever_others_have_shown(
    begin: Begin, journal: JournalFile, others: int, own: int
) -> None:
    """B1: after 64 frames of its own a key pays its tokens in each, to 5 %."""
    for per_frame, answers in ((others, 50), (others, 50), (others, 50), (own, 2)):
        journal.tenant, journal.key = uuid4(), uuid4()
        for _ in range(answers):
            journal.request(output_tokens=32 * per_frame, deltas=32, eval_ms=1000)
    service = await begin()
    await service.drain()
    row = await row_of(service, journal.request(**CUT))
    assert own == pytest.approx(row["output_tokens_per_delta"], rel=0.05)


async def test_a_clock_of_streams_teaches_where_no_time_is_reported(
    begin: Begin, journal: JournalFile
) -> None:
    """The APIs of OpenAI and Anthropic report no time; what the tap measured counts."""
    service = await begin()
    for _ in range(50):
        journal.request(output_tokens=50, eval_ms=None, stream_ms=500)
    await service.drain()
    row = await row_of(service, journal.request(**CUT))
    assert 100 == pytest.approx(row["output_tokens_per_s"], rel=0.02)


@pytest.mark.parametrize(
    "fields",
    [{"deltas": 90}, {"outcome": "client_gone", "terminal": False}, {"model": None}],
    ids=["counted", "cut", "no model"],
)
async def test_what_is_not_reported_teaches_nothing(
    begin: Begin, journal: JournalFile, fields: dict[str, object]
) -> None:
    """Only whole answers with reported usage show what a token is."""
    journal.request(**fields)
    service = await begin()
    await service.drain()
    assert 0 == await service.count("learned_figures")


async def test_a_replay_teaches_nothing(begin: Begin, journal: JournalFile) -> None:
    """Only rows that are new move the sums."""
    journal.request()
    service = await begin()
    await service.drain()
    await service.ledger.execute("DELETE FROM journal_files")
    again = await begin()
    await again.drain()
    assert [1, 1] == [
        row["answers"] for row in await again.ledger.fetch("SELECT answers FROM learned_figures")
    ]


async def test_a_key_of_two_tenants_stops_no_bill(begin: Begin, journal: JournalFile) -> None:
    """Lines that contradict each other are billed as they stand, and do not keep the others from it."""
    service = await begin()
    other = UUID(int=77)
    await service.ledger.execute("INSERT INTO tenants (id, name) VALUES ($1, 'other')", other)
    first = journal.request(**DENSE)
    second = journal.request(**DENSE | {"tenant": str(other)})
    assert 420 == (await row_of(service, first))["input_tokens"] + 20
    assert other == (await row_of(service, second))["tenant_id"]


async def test_what_is_old_fades(begin: Begin, journal: JournalFile) -> None:
    """A model that has changed is known again after a few thousand answers."""
    service = await begin()
    for _ in range(1010):
        journal.request(output_tokens=50, eval_ms=5000)
    await service.drain()
    for _ in range(12):
        for _ in range(300):
            journal.request(output_tokens=50, eval_ms=500)
        await service.drain()
    row = await row_of(service, journal.request(**CUT))
    assert row["output_tokens_per_s"] > 60


@pytest.mark.parametrize("known", [0, 20], ids=["new tenant", "known tenant"])
async def test_no_tenant_moves_what_another_pays(begin: Begin, journal: JournalFile, known: int) -> None:
    """B5: whatever one tenant sends, the figures of another stay what they were."""
    service = await begin()
    for _ in range(known):
        journal.request(output_tokens=50, eval_ms=1000)
    await service.drain()
    before = await row_of(service, journal.request(**CUT))
    honest, journal.tenant, journal.key = (journal.tenant, journal.key), uuid4(), uuid4()
    for fields in (
        {"prompt_bytes": 10_000, "input_tokens": 9_999, "output_tokens": 4000, "deltas": 1, "text_bytes": 1},
        {"output_tokens": 9000, "deltas": 0, "text_bytes": 0, "tool_bytes": 1, "output_bytes": 1},
        {"output_tokens": 1, "eval_ms": 10**9, "load_ms": 10**9, "prompt_eval_ms": 10**9},
        {"path": "/api/embed", "prompt_bytes": 1, "input_tokens": 10**6, "output_tokens": None},
    ):
        for _ in range(100):
            journal.request(**fields)
    await service.drain()
    journal.tenant, journal.key = honest
    after = await row_of(service, journal.request(**CUT))
    figures = [
        name for name in before if ("_per_" in name or name.endswith("_tokens")) and before[name] is not None
    ]
    assert [before[name] for name in figures] == [pytest.approx(after[name], rel=0.01) for name in figures]


async def test_a_model_is_known_by_three_tenants(begin: Begin, journal: JournalFile) -> None:
    """The speed of a model, which is no tenant's own, is the median of three tenants or more."""
    service = await begin()
    speeds = []
    for tokens in (90, 100, 5000):
        journal.tenant, journal.key = uuid4(), uuid4()
        for _ in range(30):
            journal.request(output_tokens=tokens, deltas=tokens, eval_ms=1000)
        await service.drain()
        again = await begin()  # what it remembers of medians is a minute old at most
        journal.tenant, journal.key = uuid4(), uuid4()
        speeds.append((await row_of(again, journal.request(**CUT)))["output_tokens_per_s"])
        service = again
    assert [20, 20, pytest.approx(100, rel=0.05)] == speeds

"""What fails late, or is left alone, costs what ran; what never ran costs nothing (B1, B6)."""

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

import asyncpg
import httpx
import pytest
import pytest_asyncio

from authz.stack.streams import kill, streams
from tests.conformance.sending import (
    FAULTS,
    GENERATIONS,
    SETTLED_WITHIN_S,
    STREAMS,
    Request,
    control,
    run_for,
    settled,
)
from tests.gateway import Gateway, NewKey
from tests.ollama.server import Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")

PACE: Final = "delay_ms=40"
"""At which the model produces its words here, always."""
WORDS: Final = 50
"""Before a fault: some two seconds."""
LESSONS: Final = 4
COLD_MODEL: Final = "toy2"
WARM: Final = 12
"""Answers in a row by which every process of authz has seen that the model is loaded."""
PROCESSES: Final = 4
"""Reads in a row that every process of authz, asked in turn, has a part in."""
SINGLE: Final = [request for request in GENERATIONS if not request.is_stream]
NATIVE: Final = [request for request in SINGLE if request.path.startswith("/api/")]
COMPLETIONS: Final = {"/api/generate", "/v1/completions"}
(GENERATE,) = (request for request in NATIVE if request.path == "/api/generate")
LATE: Final = [
    *((request, f"mode={mode} at={WORDS}") for request in NATIVE for mode in ("error", "crash", "eof")),
    (GENERATE, "mode=repeat at=10"),
]
EARLY: Final = [
    *((request, f"status code={code}") for request in GENERATIONS for code in (503, 500, 400)),
    # On the other routes Ollama answers 200 then, as if that were all.
    *((request, "error at=0") for request in GENERATIONS if request.path not in COMPLETIONS),
]
ABANDONED: Final = "SELECT * FROM ledger WHERE request_id >= $1 AND outcome IN ('client_gone', 'killed')"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def steady(
    gateway: Gateway, ledger: asyncpg.Connection, new_key: NewKey
) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose key has shown how fast the model is."""
    headers = {"Authorization": f"Bearer {await new_key()}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        await _heard_out(client, ledger, f"tokens=20 {PACE}", times=LESSONS)
        yield client


@pytest.mark.parametrize(("request_", "fault"), LATE, ids=str)
async def test_single_answer_that_fails_late(
    *,
    steady: httpx.AsyncClient,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    tag: str,
    request_: Request,
    fault: str,
) -> None:
    """B6: an error in place of an answer costs what ran: half of it at least, and 5 % more at most."""
    await _warm(steady, ledger)
    content = request_.content(f"tokens=999 {PACE} {fault} tag={tag}")
    reply = await steady.post(request_.path, content=content)
    (truth,) = await ollama.truths(tag)
    row = await settled(ledger, reply.headers["x-request-id"])
    assert "counted" == row["usage_source"]
    assert truth.output_tokens >= WORDS
    _assert_fair(row, truth.output_tokens)
    assert 1 <= row["input_tokens"] <= row["ceiling_input"]


@pytest.mark.parametrize(("request_", "fault"), EARLY, ids=str)
async def test_failure_before_any_work_is_free(
    steady: httpx.AsyncClient, ledger: asyncpg.Connection, request_: Request, fault: str
) -> None:
    """B1: what was refused, or failed before its first word, costs nothing."""
    reply = await steady.post(request_.path, content=request_.content(f"tokens=9 mode={fault}"))
    row = await settled(ledger, reply.headers["x-request-id"])
    assert ("none", 0, 0) == (row["usage_source"], row["input_tokens"], row["output_tokens"])


@pytest.mark.parametrize("mode", FAULTS)
@pytest.mark.parametrize("request_", STREAMS, ids=str)
async def test_stream_that_fails_late(
    *,
    steady: httpx.AsyncClient,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    tag: str,
    request_: Request,
    mode: str,
) -> None:
    """B1: delivered <= billed <= produced + 5 %, and the outcome is the backend's."""
    content = request_.content(f"tokens=40 mode={mode} at=20 tag={tag}")
    reply = await steady.post(request_.path, content=content)
    (truth,) = await ollama.truths(tag)
    row = await settled(ledger, reply.headers["x-request-id"])
    assert row["outcome"] in {"upstream_error", "upstream_gone"}
    assert "counted" == row["usage_source"]
    assert 20 == row["deltas"] == truth.output_tokens
    assert 20 <= row["output_tokens"] <= 21


@pytest.mark.parametrize("cut", ["client_gone", "killed"])
@pytest.mark.parametrize("request_", SINGLE, ids=str)
async def test_single_answer_left_alone(
    *,
    steady: httpx.AsyncClient,
    gateway: Gateway,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    tag: str,
    request_: Request,
    cut: str,
) -> None:
    """B1: who leaves before a single answer pays half of what ran at least, and 5 % more at most."""
    await _warm(steady, ledger)
    floor = await ledger.fetchval("SELECT uuid7_floor(clock_timestamp())")
    with ollama.gate(tag) as gate:
        gate.release(999)
        content = request_.content(f"tokens=999 {PACE} hold={tag} tag={tag}")
        asking = asyncio.create_task(steady.post(request_.path, content=content))
        await ollama.last(tag, lines=1 + WORDS)
        if cut == "killed":
            (running,) = await streams(control(gateway))
            await kill(control(gateway), id=UUID(running.id))
            assert 503 == (await asking).status_code
        asking.cancel()
        (truth,) = await ollama.truths(tag)
    (row,) = await _rows(ledger, floor, 1)
    assert (cut, "cancel", "counted") == (row["outcome"], truth.end, row["usage_source"])
    _assert_fair(row, truth.output_tokens)


async def test_leaving_while_the_model_loads_is_free(
    *,
    steady: httpx.AsyncClient,
    gateway: Gateway,
    ollama: Ollama,
    direct: httpx.AsyncClient,
    ledger: asyncpg.Connection,
) -> None:
    """B1: waiting for a model that is being loaded costs nothing, however one asks for it."""
    await direct.post("/api/generate", json={"model": COLD_MODEL, "keep_alive": 0})
    await _cold(steady)
    floor = await ledger.fetchval("SELECT uuid7_floor(clock_timestamp())")
    with ollama.gate(ollama.file_of(COLD_MODEL)) as gate:
        asking = [
            asyncio.create_task(
                steady.post(each.path, content=each.content("x").replace(b"toy", COLD_MODEL.encode()))
            )
            for each in GENERATIONS
        ]
        await run_for(gateway, len(asking), age_ms=1000)
        for task in asking:
            task.cancel()
        rows = await _rows(ledger, floor, len(asking))
        gate.release(1)
    assert {(True, "none", 0, 0)} == {
        (row["cold"], row["usage_source"], row["input_tokens"], row["output_tokens"]) for row in rows
    }


def _assert_fair(row: asyncpg.Record, produced: int) -> None:
    billed, at = row["output_tokens"], (row["duration_ms"], row["output_tokens_per_s"])
    assert produced / 2 <= billed <= math.ceil(produced * 1.05), f"of {produced}, in ms at a rate: {at}"


async def _warm(client: httpx.AsyncClient, ledger: asyncpg.Connection) -> None:
    """Load the model where a fault has ended it, until every process of authz has seen so."""
    async with asyncio.timeout(20):
        while True:
            rows = await _heard_out(client, ledger, f"tokens=1 {PACE}", times=WARM)
            if not any(row["cold"] for row in rows):
                return


async def _heard_out(
    client: httpx.AsyncClient, ledger: asyncpg.Connection, prompt: str, *, times: int
) -> list[asyncpg.Record]:
    replies = [await client.post(GENERATE.path, content=GENERATE.content(prompt)) for _ in range(times)]
    rows = [await settled(ledger, reply.headers["x-request-id"]) for reply in replies]
    assert {"reported"} == {row["usage_source"] for row in rows}
    return rows


async def _cold(client: httpx.AsyncClient) -> None:
    """Wait until every process of authz has seen that the model is not loaded."""
    async with asyncio.timeout(20):
        while any([COLD_MODEL in await _loaded(client) for _ in range(PROCESSES)]):
            await asyncio.sleep(0.5)


async def _loaded(client: httpx.AsyncClient) -> str:
    reply = await client.get("/api/ps")
    assert reply.is_success, reply.text
    return reply.text


async def _rows(ledger: asyncpg.Connection, floor: UUID, count: int) -> list[asyncpg.Record]:
    """Wait for the rows of so many requests that their clients have left."""
    rows: list[asyncpg.Record] = []
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while len(rows) < count:
            rows = await ledger.fetch(ABANDONED, floor)
            await asyncio.sleep(0.02)
    return rows

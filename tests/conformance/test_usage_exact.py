"""The bill is what the backend produced (B1)."""

import asyncio
import json
from typing import Final

import asyncpg
import httpx
import pytest

from tests.conformance.sending import (
    EMBEDDINGS,
    FAULTS,
    GENERATIONS,
    LOADS,
    PROMPTS,
    STREAMS,
    UNREPORTED,
    Request,
    one_row,
    seen,
    settled,
)
from tests.gateway import Gateway, NewKey
from tests.ollama.server import Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")

ABANDONED: Final = "SELECT * FROM ledger WHERE request_id >= $1 AND outcome = 'client_gone'"


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("request_", [*GENERATIONS, *EMBEDDINGS], ids=str)
async def test_ledger_is_the_truth(
    *,
    gated: httpx.AsyncClient,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    tag: str,
    request_: Request,
    prompt: str,
) -> None:
    """B1: one row, with the tokens that the backend produced, asked for usage or not."""
    reply = await gated.post(request_.path, content=request_.content(f"{prompt} tag={tag}"))
    assert 200 == reply.status_code
    (truth,) = await ollama.truths(tag)
    row = await settled(ledger, reply.headers["x-request-id"])
    assert "reported" == row["usage_source"]
    assert ("completed", request_.path, request_.model) == (row["outcome"], row["path"], row["model"])
    assert ollama.file_of(request_.model) == truth.model
    # Embeddings know no cached part; everywhere else it is reported beside the whole.
    cached = None if request_.is_embedding else truth.cached_tokens
    assert (truth.input_tokens, truth.output_tokens, cached) == (
        row["input_tokens"],
        row["output_tokens"],
        row["cached_tokens"],
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "{}", "stream": False, "options": {"num_predict": 2**41}}),
        ("/v1/completions", {"prompt": "{}", "max_tokens": 2**41}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "{}"}], "max_tokens": 2**53}),
        ("/v1/responses", {"input": "{}", "max_output_tokens": 2**62}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "{}"}], "max_tokens": 10**18}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_no_cap_makes_a_request_free(
    *,
    gated: httpx.AsyncClient,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    tag: str,
    path: str,
    body: dict[str, object],
) -> None:
    """A1: a cap beyond what metering could settle is clamped, and the request is billed."""
    content = json.dumps({"model": "toy"} | body).replace("{}", f"tokens=5 tag={tag}")
    reply = await gated.post(path, content=content)
    assert 200 == reply.status_code, reply.text
    (truth,) = await ollama.truths(tag)
    row = await settled(ledger, reply.headers["x-request-id"])
    assert ("reported", truth.input_tokens, truth.output_tokens) == (
        row["usage_source"],
        row["input_tokens"],
        row["output_tokens"],
    )


async def test_unreported_input_is_counted(
    gated: httpx.AsyncClient, ledger: asyncpg.Connection, tag: str
) -> None:
    """B1: the one route that reports nothing is billed from its bytes, never free."""
    reply = await gated.post(UNREPORTED.path, content=UNREPORTED.content(f"one two three tag={tag}"))
    assert 200 == reply.status_code
    row = await settled(ledger, reply.headers["x-request-id"])
    assert ("completed", "counted", 0) == (row["outcome"], row["usage_source"], row["output_tokens"])
    assert row["input_tokens"] in range(1, 100)


async def test_embedding_costs_the_same_on_either_route(
    gateway: Gateway, ledger: asyncpg.Connection, new_key: NewKey
) -> None:
    """B1: once /api/embed has shown what a text costs, /api/embeddings costs that within 1 %."""
    text = " ".join(f"number {number} is written out" for number in range(60))
    embed, billed = EMBEDDINGS[0], []
    headers = {"Authorization": f"Bearer {await new_key()}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        for request in (embed, embed, UNREPORTED):
            reply = await client.post(request.path, content=request.content(text))
            row = await settled(ledger, reply.headers["x-request-id"])
            billed.append((row["path"], row["usage_source"], row["input_tokens"]))
    (_, _, exact), unreported = billed[1:]
    assert [("/api/embed", "reported", 302)] * 2 == billed[:2]
    assert ("/api/embeddings", "counted") == unreported[:2]
    assert abs(unreported[2] - exact) <= exact * 0.01


@pytest.mark.parametrize("mode", FAULTS)
@pytest.mark.parametrize("request_", STREAMS, ids=str)
async def test_broken_stream_is_billed(
    gated: httpx.AsyncClient, ledger: asyncpg.Connection, request_: Request, mode: str
) -> None:
    """B1: a stream that ends early costs what was delivered, and never more than reserved."""
    content = request_.content(f"tokens=6 mode={mode} at=3 cache=0")
    reply = await gated.post(request_.path, content=content)
    row = await settled(ledger, reply.headers["x-request-id"])
    assert "counted" == row["usage_source"]
    assert 3 <= row["output_tokens"] <= row["ceiling_output"]
    assert 1 <= row["input_tokens"] <= row["ceiling_input"]


@pytest.mark.parametrize("request_", [*GENERATIONS, *EMBEDDINGS, UNREPORTED], ids=str)
async def test_refused_by_the_backend_is_free(
    gated: httpx.AsyncClient, ledger: asyncpg.Connection, request_: Request
) -> None:
    """B1: an error in place of an answer costs nothing, and keeps its status."""
    reply = await gated.post(request_.path, content=request_.content("mode=status code=503"))
    row = await settled(ledger, reply.headers["x-request-id"])
    assert reply.status_code == row["status"] == row["upstream_status"]
    assert ("none", 0, 0) == (row["usage_source"], row["input_tokens"], row["output_tokens"])


@pytest.mark.parametrize("request_", LOADS, ids=str)
async def test_load_is_free(gated: httpx.AsyncClient, ledger: asyncpg.Connection, request_: Request) -> None:
    """B1: a request that only loads the model is reported as nothing."""
    reply = await gated.post(request_.path, content=request_.content(""))
    assert 200 == reply.status_code
    row = await settled(ledger, reply.headers["x-request-id"])
    assert ("completed", True, "reported") == (row["outcome"], row["terminal"], row["usage_source"])
    assert (0, 0) == (row["input_tokens"], row["output_tokens"])


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("request_", STREAMS, ids=str)
async def test_hang_up_is_cancelled_and_billed(
    *,
    gated: httpx.AsyncClient,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    tag: str,
    request_: Request,
    chunks: int,
) -> None:
    """B1: who hangs up after k chunks pays for k at least, and the backend saw the cancel."""
    content = request_.content(f"tokens=9 hold={tag} tag={tag}")
    with ollama.gate(tag) as gate:
        gate.release(chunks)
        async with gated.stream("POST", request_.path, content=content) as reply:
            await seen(reply.aiter_lines(), ("Rayleigh", "scatter", "makes")[chunks - 1])
        (truth,) = await ollama.truths(tag)
    assert ("cancel", chunks) == (truth.end, truth.output_tokens)
    row = await settled(ledger, reply.headers["x-request-id"])
    assert ("client_gone", "counted", False) == (row["outcome"], row["usage_source"], row["terminal"])
    assert chunks == row["deltas"] <= row["output_tokens"] <= row["ceiling_output"]
    assert 1 <= row["input_tokens"] <= row["ceiling_input"]


async def test_abandoned_single_answer_is_billed(
    gated: httpx.AsyncClient, ollama: Ollama, ledger: asyncpg.Connection, tag: str
) -> None:
    """B1: who leaves before a single answer pays for its input; the backend saw the cancel."""
    floor = await ledger.fetchval("SELECT uuid7_floor(clock_timestamp())")
    (single,) = (each for each in GENERATIONS if str(each) == "api/chat")
    content = single.content(f"tokens=9 hold={tag} tag={tag}")
    with ollama.gate(tag):
        asking = asyncio.create_task(gated.post(single.path, content=content))
        await ollama.last(tag)
        asking.cancel()
        (truth,) = await ollama.truths(tag)
    assert "cancel" == truth.end
    row = await one_row(ledger, ABANDONED, floor)
    assert ("counted", single.path) == (row["usage_source"], row["path"])
    assert 1 <= row["input_tokens"] <= row["ceiling_input"]
    assert 0 <= row["output_tokens"] <= row["ceiling_output"]

"""What is billed is what the backend produced (B1)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.e2e.sending import (
    EMBEDDINGS,
    FAULTS,
    GENERATIONS,
    LOADS,
    PROMPTS,
    STREAMS,
    UNREPORTED,
    Gateway,
    Request,
    release,
    seen,
    tally,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTLED_WITHIN_S: Final = 10
BY_ID: Final = "SELECT * FROM ledger WHERE request_id = $1"
ABANDONED: Final = "SELECT * FROM ledger WHERE request_id >= $1 AND outcome = 'client_gone'"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gated(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway with a valid key."""
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the demo backend itself."""
    async with httpx.AsyncClient(base_url=gateway.demo_url, timeout=20) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ledger(gateway: Gateway) -> AsyncIterator[asyncpg.Connection]:
    """The database that bills."""
    connection = await asyncpg.connect(gateway.database_url)
    yield connection
    await connection.close()


@pytest.fixture
def tag() -> str:
    """The name of this test's requests in the tally, and of its gate."""
    return f"t{uuid4().hex[:12]}"


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("request_", [*GENERATIONS, *EMBEDDINGS], ids=str)
async def test_ledger_is_the_truth(
    *,
    gated: httpx.AsyncClient,
    demo: httpx.AsyncClient,
    ledger: asyncpg.Connection,
    tag: str,
    request_: Request,
    prompt: str,
) -> None:
    """B1: one row, with the tokens that the backend produced, asked for usage or not."""
    reply = await gated.post(request_.path, content=request_.content(f"{prompt} tag={tag}"))
    assert 200 == reply.status_code
    (truth,) = await tally(demo, tag)
    row = await settled(ledger, reply.headers["x-request-id"])
    assert "reported" == row["usage_source"]
    assert ("completed", request_.path, truth["model"]) == (row["outcome"], row["path"], row["model"])
    # Embeddings know no cached part; everywhere else it is reported beside the whole.
    cached = None if request_.is_embedding else truth["cached_tokens"]
    assert (truth["input_tokens"], truth["output_tokens"], cached) == (
        row["input_tokens"],
        row["output_tokens"],
        row["cached_tokens"],
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
    assert 3 <= row["output_tokens"] <= row["reserved_output"]
    assert 1 <= row["input_tokens"] <= row["reserved_input"]


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
    demo: httpx.AsyncClient,
    ledger: asyncpg.Connection,
    tag: str,
    request_: Request,
    chunks: int,
) -> None:
    """B1: who hangs up after k chunks pays for k at least, and the backend saw the cancel."""
    content = request_.content(f"tokens=9 hold={tag} tag={tag}")
    await release(demo, tag, chunks)
    async with gated.stream("POST", request_.path, content=content) as reply:
        await seen(reply.aiter_lines(), ("Rayleigh", "scatter", "makes")[chunks - 1])
    (truth,) = await tally(demo, tag)
    assert (True, chunks) == (truth["cancelled"], truth["output_tokens"])
    row = await settled(ledger, reply.headers["x-request-id"])
    assert ("client_gone", "counted", False) == (row["outcome"], row["usage_source"], row["terminal"])
    assert chunks == row["deltas"] <= row["output_tokens"] <= row["reserved_output"]
    assert 1 <= row["input_tokens"] <= row["reserved_input"]


async def test_abandoned_single_answer_is_billed(
    gated: httpx.AsyncClient, demo: httpx.AsyncClient, ledger: asyncpg.Connection, tag: str
) -> None:
    """B1: who leaves before a single answer pays for its input; the backend saw the cancel."""
    floor = await ledger.fetchval("SELECT uuid7_floor(clock_timestamp())")
    (single,) = (each for each in GENERATIONS if str(each) == "api/chat")
    content = single.content(f"tokens=9 hold={tag} tag={tag}")
    asking = asyncio.create_task(gated.post(single.path, content=content))
    await tally(demo, tag, running=1, ended=0)
    asking.cancel()
    (truth,) = await tally(demo, tag)
    assert truth["cancelled"]
    row = await one_row(ledger, ABANDONED, floor)
    assert ("counted", single.path) == (row["usage_source"], row["path"])
    assert 1 <= row["input_tokens"] <= row["reserved_input"]
    assert 0 <= row["output_tokens"] <= row["reserved_output"]


async def settled(ledger: asyncpg.Connection, request_id: str) -> asyncpg.Record:
    """Read the one ledger row of a request, once metering has settled it."""
    return await one_row(ledger, BY_ID, UUID(request_id))


async def one_row(ledger: asyncpg.Connection, query: str, value: UUID) -> asyncpg.Record:
    """Wait for the one row that a query finds."""
    for _ in range(SETTLED_WITHIN_S * 100):
        rows = await ledger.fetch(query, value)
        if rows:
            (row,) = rows
            return row
        await ledger.execute("SELECT pg_sleep(0.01)")
    pytest.fail(f"{value} was not settled within {SETTLED_WITHIN_S} s")

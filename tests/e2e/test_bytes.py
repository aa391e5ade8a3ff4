"""What the client gets is what the backend sent: the same bytes (C1), as they come (C2)."""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from tests.e2e.sending import (
    EMBEDDINGS,
    FAULTS,
    GENERATIONS,
    PROMPTS,
    STREAMS,
    UNREPORTED,
    Gateway,
    Request,
    masked,
    release,
    seen,
    tally,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


@pytest.fixture
def tag() -> str:
    """The name of this test's requests in the tally, and of its gate."""
    return f"t{uuid4().hex[:12]}"


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("request_", [*GENERATIONS, *EMBEDDINGS, UNREPORTED], ids=str)
async def test_bytes_are_the_backends(
    gated: httpx.AsyncClient, demo: httpx.AsyncClient, request_: Request, prompt: str
) -> None:
    """C1: the gated answer equals the direct one; ids, times and durations aside."""
    content = request_.content(prompt)
    direct = await demo.post(request_.path, content=content)
    via = await gated.post(request_.path, content=content)
    assert (direct.status_code, direct.headers["content-type"]) == (
        via.status_code,
        via.headers["content-type"],
    )
    assert masked(direct.content) == masked(via.content)


@pytest.mark.parametrize("fault", [*(f"{mode} at=3" for mode in FAULTS), "error at=0", "status code=503"])
@pytest.mark.parametrize("request_", GENERATIONS, ids=str)
async def test_broken_bytes_are_the_backends(
    gated: httpx.AsyncClient, demo: httpx.AsyncClient, request_: Request, fault: str
) -> None:
    """C1: an answer that breaks inside the backend breaks with the same bytes for the client."""
    content = request_.content(f"tokens=6 mode={fault} cache=0")
    direct = await demo.post(request_.path, content=content)
    via = await gated.post(request_.path, content=content)
    assert direct.status_code == via.status_code
    assert masked(direct.content) == masked(via.content)


@pytest.mark.parametrize("request_", STREAMS, ids=str)
async def test_chunk_passes_while_the_next_is_withheld(
    gated: httpx.AsyncClient, demo: httpx.AsyncClient, tag: str, request_: Request
) -> None:
    """C2: chunk n reaches the client while the backend still holds chunk n + 1 back."""
    content = request_.content(f"tokens=3 hold={tag} tag={tag}")
    await release(demo, tag, 1)
    async with gated.stream("POST", request_.path, content=content) as reply:
        lines = reply.aiter_lines()
        for produced, word in enumerate(("Rayleigh", "scatter", "makes"), start=1):
            await seen(lines, word)
            (truth,) = await tally(demo, tag, ended=0)
            assert (produced, "") == (truth["output_tokens"], truth["end"])
            await release(demo, tag, 1)
        assert [line async for line in lines]
    (truth,) = await tally(demo, tag)
    assert truth["finished"]

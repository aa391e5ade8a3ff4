"""The client gets what the backend sent: the same bytes (C1), as they come (C2)."""

import httpx
import pytest

from tests.conformance.sending import (
    EMBEDDINGS,
    FAULTS,
    GENERATIONS,
    PROMPTS,
    STREAMS,
    UNREPORTED,
    Request,
    masked,
    seen,
)
from tests.ollama.server import Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("request_", [*GENERATIONS, *EMBEDDINGS, UNREPORTED], ids=str)
async def test_bytes_are_the_backends(
    gated: httpx.AsyncClient, direct: httpx.AsyncClient, request_: Request, prompt: str
) -> None:
    """C1: the gated answer equals the direct one; ids, times and durations aside."""
    content = request_.content(prompt)
    plain = await direct.post(request_.path, content=content)
    via = await gated.post(request_.path, content=content)
    assert (plain.status_code, plain.headers["content-type"]) == (
        via.status_code,
        via.headers["content-type"],
    )
    assert masked(plain.content) == masked(via.content)


@pytest.mark.parametrize("fault", [*(f"{mode} at=3" for mode in FAULTS), "error at=0", "status code=503"])
@pytest.mark.parametrize("request_", GENERATIONS, ids=str)
async def test_broken_bytes_are_the_backends(
    gated: httpx.AsyncClient, direct: httpx.AsyncClient, request_: Request, fault: str
) -> None:
    """C1: an answer that breaks inside the backend breaks with the same bytes for the client."""
    content = request_.content(f"tokens=6 mode={fault} cache=0")
    plain = await direct.post(request_.path, content=content)
    via = await gated.post(request_.path, content=content)
    assert plain.status_code == via.status_code
    assert masked(plain.content) == masked(via.content)


@pytest.mark.parametrize("request_", STREAMS, ids=str)
async def test_chunk_passes_while_the_next_is_withheld(
    gated: httpx.AsyncClient, ollama: Ollama, tag: str, request_: Request
) -> None:
    """C2: chunk n reaches the client while the backend still holds chunk n + 1 back."""
    content = request_.content(f"tokens=3 hold={tag} tag={tag}")
    with ollama.gate(tag) as gate:
        gate.release(1)
        async with gated.stream("POST", request_.path, content=content) as reply:
            lines = reply.aiter_lines()
            for produced, word in enumerate(("Rayleigh", "scatter", "makes"), start=1):
                await seen(lines, word)
                truth = await ollama.last(tag, lines=1 + produced)
                assert (produced, "") == (truth.output_tokens, truth.end)
                gate.release(1)
            assert [line async for line in lines]
        (truth,) = await ollama.truths(tag)
        assert "stop" == truth.end

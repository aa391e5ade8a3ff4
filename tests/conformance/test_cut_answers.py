"""A stream that is cut off costs what was delivered, and hardly more than was produced (B1)."""

import asyncio
import json
import math
from typing import Final
from urllib.parse import quote
from uuid import UUID

import asyncpg
import httpx
import pytest
from attrs import frozen

from authz.stack.streams import kill, streams
from tests.conformance.sending import STREAMS, Request, control, seen, settled
from tests.gateway import Gateway, NewKey
from tests.ollama.server import Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRAMES: Final = 11
"""Delivered before the cut."""
LESSONS: Final = 8
"""Answers heard out before it."""


@frozen
class Content:
    """What an answer consists of."""

    knobs: str
    tokens_per_frame: int = 1


CONTENTS: Final = {
    "text": Content("tokens=64"),
    "thinking": Content("think=64 tokens=64"),
    "glued": Content("tokens=64 pertoken=4", tokens_per_frame=4),
}
_ARGUMENTS: Final = {"text": " ".join(f"word{number}" for number in range(40))}
CALL: Final = f"<tool_call>{json.dumps({'name': 'write_down', 'arguments': _ARGUMENTS})}</tool_call>"
"""As the model writes it: Ollama passes it on in one frame, at once."""
CALLS: Final = {"a tool call": CALL, "text, then a tool call": f"I shall write this down at once: {CALL}"}
SCHEMA: Final = {"type": "object", "properties": {"text": {"type": "string"}}}
_FUNCTION: Final = {"name": "write_down", "parameters": SCHEMA}
TOOLS: Final[dict[str, dict[str, object]]] = {
    "/api/chat": {"type": "function", "function": _FUNCTION},
    "/v1/chat/completions": {"type": "function", "function": _FUNCTION},
    "/v1/responses": {"type": "function", **_FUNCTION},
    "/v1/messages": {"name": "write_down", "input_schema": SCHEMA},
}
CUT: Final = [request for request in STREAMS if "include_usage" not in request.body]
CUTS: Final = {"hang up": "client_gone", "kill": "killed"}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("request_", CUT, ids=str)
async def test_cut_stream(
    *,
    gateway: Gateway,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    new_key: NewKey,
    tag: str,
    request_: Request,
    content: Content,
    cut: str,
) -> None:
    """B1: delivered <= billed <= produced + 5 %, for text, thinking and several tokens in a frame."""
    asked = request_.content(f"{content.knobs} hold={tag} tag={tag}")
    async with _client(gateway, await new_key()) as client:
        await _teach(client, ledger, request_, request_.content(content.knobs))
        with ollama.gate(tag) as gate:
            gate.release(FRAMES)
            async with client.stream("POST", request_.path, content=asked) as reply:
                request_id = reply.headers["x-request-id"]
                await _delivered(gateway, request_id, frames=FRAMES)
                await _cut(gateway, reply, cut)
            (truth,) = await ollama.truths(tag)
    row = await settled(ledger, request_id)
    delivered = FRAMES * content.tokens_per_frame
    assert (CUTS[cut], FRAMES, delivered) == (row["outcome"], row["deltas"], truth.output_tokens)
    assert delivered <= row["output_tokens"] <= math.ceil(delivered * 1.05)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("said", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("request_", [request for request in CUT if request.path in TOOLS], ids=str)
async def test_cut_behind_a_tool_call(
    *,
    gateway: Gateway,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    new_key: NewKey,
    tag: str,
    request_: Request,
    said: str,
    cut: str,
) -> None:
    """B1: a tool call comes in one frame, and costs its tokens: who takes it and leaves pays for it."""
    async with _client(gateway, await new_key()) as client:
        await _teach(client, ledger, request_, _with_tool(request_, f"say={quote(said)}"))
        await _teach(client, ledger, request_, _with_tool(request_, "tokens=64"))
        with ollama.gate(tag) as gate:
            gate.release(len(said.split()))
            asked = _with_tool(request_, f"say={quote(said)} hold={tag} tag={tag}")
            async with client.stream("POST", request_.path, content=asked) as reply:
                request_id = reply.headers["x-request-id"]
                await seen(reply.aiter_lines(), "word39")
                await _cut(gateway, reply, cut)
            (truth,) = await ollama.truths(tag)
    row = await settled(ledger, request_id)
    assert (CUTS[cut], "cancel") == (row["outcome"], truth.end)
    assert 0 < row["tool_bytes"]
    produced = truth.output_tokens
    assert len(said.split()) == produced
    assert produced <= row["output_tokens"] <= math.ceil(produced * 1.05)


@pytest.mark.parametrize("request_", [request for request in CUT if request.path in TOOLS], ids=str)
async def test_tool_calls_do_not_move_the_price_of_text(
    *,
    gateway: Gateway,
    ollama: Ollama,
    ledger: asyncpg.Connection,
    new_key: NewKey,
    tag: str,
    request_: Request,
) -> None:
    """B1: text that is cut costs its words, to a key that has called nothing but tools."""
    async with _client(gateway, await new_key()) as client:
        await _teach(client, ledger, request_, _with_tool(request_, f"say={quote(CALL)}"))
        with ollama.gate(tag) as gate:
            gate.release(FRAMES)
            asked = _with_tool(request_, f"tokens=64 hold={tag} tag={tag}")
            async with client.stream("POST", request_.path, content=asked) as reply:
                request_id = reply.headers["x-request-id"]
                await _delivered(gateway, request_id, frames=FRAMES)
    row = await settled(ledger, request_id)
    assert ("client_gone", FRAMES) == (row["outcome"], row["output_tokens"])


def _client(gateway: Gateway, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, timeout=20)


async def _teach(
    client: httpx.AsyncClient, ledger: asyncpg.Connection, request: Request, content: bytes
) -> None:
    """Let the key show by whole answers how many tokens the model makes of its frames and bytes."""
    replies = [await client.post(request.path, content=content) for _ in range(LESSONS)]
    rows = [await settled(ledger, reply.headers["x-request-id"]) for reply in replies]
    assert {"reported"} == {row["usage_source"] for row in rows}


def _with_tool(request: Request, knobs: str) -> bytes:
    body = json.loads(request.content(knobs))
    return json.dumps(body | {"model": "toy-tpl", "tools": [TOOLS[request.path]]}).encode()


async def _delivered(gateway: Gateway, request_id: str, *, frames: int) -> None:
    """Wait until a stream has brought so many frames."""
    async with asyncio.timeout(10):
        while frames not in [
            stream.output_tokens for stream in await streams(control(gateway)) if stream.id == request_id
        ]:
            await asyncio.sleep(0.01)


async def _cut(gateway: Gateway, reply: httpx.Response, cut: str) -> None:
    """Hang up, or have the request ended by an operator: its row says whether it was."""
    if cut == "kill":
        await kill(control(gateway), id=UUID(reply.headers["x-request-id"]))
    await reply.aclose()

"""A prompt's reservation is never less than what Ollama reports for it (L3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.conformance.sending import settled
from tests.gateway import Gateway
from tests.ollama.server import Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")

_WORDS: Final = "a " * 900
_TABLE_WITHIN_S: Final = 15
_PARAMETERS: Final = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "a b c d e f"}, "days": {"type": "integer"}},
    "required": ["city"],
}
_FUNCTION: Final = {"name": "get_weather", "description": "tell the weather", "parameters": _PARAMETERS}
_TOOLS: Final = [{"type": "function", "function": _FUNCTION}]
_TURNS: Final = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "a b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "TAG"},
]
_CALLED: Final = [
    {"role": "user", "content": "the weather in Paris"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "a b c d"}}}],
    },
    {"role": "tool", "content": "x y z"},
    {"role": "user", "content": "TAG"},
]
_USE: Final = {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "a b c d"}}
_USED: Final = [
    {"role": "user", "content": "the weather in Paris"},
    {"role": "assistant", "content": [_USE]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "x y z"}]},
    {"role": "user", "content": [{"type": "text", "text": "a b"}, {"type": "text", "text": "TAG"}]},
]
_WORDY: Final = [{"id": _WORDS, "function": {"name": _WORDS, "arguments": {_WORDS: [_WORDS]}}}]
_WORDY_SCHEMA: Final = {"type": "object", "properties": {_WORDS: {"type": "string", "description": _WORDS}}}
_GROWING: Final = [
    {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":[' + "1e20," * 99 + "1]}"}}
]
_ONE: Final = [{"role": "user", "content": "TAG"}]
PROMPTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "one word": ("/api/chat", {"messages": _ONE}),
    "turns": ("/api/chat", {"messages": _TURNS}),
    "turns in a template": ("/api/chat", {"model": "toy-tpl", "messages": _TURNS}),
    "reasoning": ("/api/chat", {"model": "toy-think", "messages": _TURNS, "think": True}),
    "many words": ("/api/chat", {"messages": [{"role": "user", "content": f"{_WORDS}TAG"}]}),
    "empty messages": ("/api/chat", {"messages": [{"role": "user", "content": ""}] * 50 + _ONE}),
    "tools": ("/api/chat", {"messages": _ONE, "tools": _TOOLS * 5}),
    "tool calls": ("/api/chat", {"messages": _CALLED, "tools": _TOOLS}),
    "words as a name of a tool": (
        "/api/chat",
        {"messages": [{"role": "tool", "tool_name": _WORDS, "content": "x"}, *_ONE]},
    ),
    "words in every field of a call": (
        "/api/chat",
        {
            "messages": [
                {"role": "assistant", "content": _WORDS, "thinking": _WORDS, "tool_calls": _WORDY},
                *_ONE,
            ]
        },
    ),
    "words in a schema": (
        "/api/chat",
        {
            "messages": _ONE,
            "tools": [{"type": "function", "function": {"name": _WORDS, "parameters": _WORDY_SCHEMA}}],
        },
    ),
    "numbers that grow": (
        "/v1/chat/completions",
        {"messages": [{"role": "assistant", "content": "", "tool_calls": _GROWING}, *_ONE]},
    ),
    "empty tools": ("/api/chat", {"messages": _ONE, "tools": [{}] * 50}),
    "a system that shouts": ("/api/chat", {"messages": [{"role": "SYSTEM", "content": _WORDS}, *_ONE]}),
    "tokens of an earlier answer": ("/api/generate", {"prompt": "TAG", "context": [1, 2, 300, 280] * 50}),
    "schema": ("/api/chat", {"messages": _ONE, "format": _PARAMETERS}),
    "prompt": ("/api/generate", {"prompt": "TAG", "system": "be brief"}),
    "prompt in a template": ("/api/generate", {"model": "toy-tpl", "prompt": "TAG", "system": "a b c"}),
    "raw prompt": ("/api/generate", {"prompt": f"{_WORDS}TAG", "raw": True}),
    "insert": ("/api/generate", {"model": "toy-tpl", "prompt": "TAG", "suffix": "a b c"}),
    "OpenAI's turns": ("/v1/chat/completions", {"messages": _TURNS}),
    "OpenAI's parts": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": t} for t in ("a", "b", "TAG")]}]},
    ),
    "OpenAI's tools": ("/v1/chat/completions", {"messages": _ONE, "tools": _TOOLS * 5}),
    "OpenAI's completion": ("/v1/completions", {"prompt": "TAG"}),
    "OpenAI's insert": ("/v1/completions", {"model": "toy-tpl", "prompt": "TAG", "suffix": "a b c"}),
    "response": ("/v1/responses", {"input": "TAG", "instructions": "be brief"}),
    "response's items": ("/v1/responses", {"input": _TURNS}),
    "response's tools": (
        "/v1/responses",
        {"input": _ONE, "tools": [{"type": "function", **_FUNCTION}]},
    ),
    "message": ("/v1/messages", {"messages": _ONE, "system": "be brief", "max_tokens": 9}),
    "message's blocks": ("/v1/messages", {"messages": _USED, "max_tokens": 9}),
    "message's tools": (
        "/v1/messages",
        {
            "messages": _ONE,
            "max_tokens": 9,
            "tools": [{"name": "get_weather", "description": "a b", "input_schema": _PARAMETERS}] * 5,
        },
    ),
    "vector": ("/api/embed", {"model": "toy-embed", "input": "a b TAG"}),
    "OpenAI's vector": ("/v1/embeddings", {"model": "toy-embed", "input": "a b TAG"}),
    "older vector": ("/api/embeddings", {"model": "toy-embed", "prompt": "a b TAG"}),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def budgeted(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose key has a budget: its reservations are bounds, not estimates."""
    headers = {"Authorization": f"Bearer {gateway.create_key('budgeted', '--tokens-total', '1000000000')}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        yield client


@pytest.mark.parametrize(("path", "fields"), PROMPTS.values(), ids=PROMPTS)
async def test_bound_holds(
    *,
    budgeted: httpx.AsyncClient,
    ledger: asyncpg.Connection,
    ollama: Ollama,
    tag: str,
    path: str,
    fields: dict[str, Any],
) -> None:
    """L3: the reservation covers the prompt, however it is built; and exactly that prompt is billed."""
    body = _tagged({"model": "toy", "stream": False, **fields}, f"tokens=3 tag={tag}")
    reply = await budgeted.post(path, json=body)
    assert 200 == reply.status_code
    (truth,) = await ollama.truths(tag)
    row = await settled(ledger, reply.headers["x-request-id"])
    assert truth.input_tokens <= row["reserved_input"]
    assert 0 == row["overrun_tokens"]
    if row["usage_source"] == "reported":
        assert truth.input_tokens == row["input_tokens"]


async def test_known_words_are_near(
    budgeted: httpx.AsyncClient, ledger: asyncpg.Connection, ollama: Ollama
) -> None:
    """A prompt of words that the model's own vocabulary holds is held at little more than it is.

    The gateway asks Ollama for the vocabulary when it starts; until it has read it a byte is a token.
    """
    for _ in range(_TABLE_WITHIN_S * 10):
        tag = f"t{uuid4().hex[:12]}"
        prompt = f"{_WORDS}tokens=1 tag={tag}"
        reply = await budgeted.post("/api/generate", json={"model": "TOY", "stream": False, "prompt": prompt})
        (truth,) = await ollama.truths(tag)
        row = await settled(ledger, reply.headers["x-request-id"])
        assert truth.input_tokens <= row["reserved_input"]
        if row["reserved_input"] <= 1.3 * truth.input_tokens:
            return
        await ledger.execute("SELECT pg_sleep(0.1)")
    pytest.fail("no table of the model's words was used")


def _tagged(shape: Any, tag: str) -> Any:
    """Put the tag where a prompt has its place for one."""
    match shape:
        case str():
            return shape.replace("TAG", tag)
        case list():
            return [_tagged(each, tag) for each in shape]
        case dict():
            return {name: _tagged(each, tag) for name, each in shape.items()}
    return shape

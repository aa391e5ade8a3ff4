"""The requests of the conformance tests: every metered route in every shape."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import pytest
from attrs import frozen

from authz.stack.streams import streams
from tests.gateway import Gateway

MODEL: Final = "toy"
EMBED_MODEL: Final = "toy-embed"
SETTLED_WITHIN_S: Final = 10
_BY_ID: Final = "SELECT * FROM ledger WHERE request_id = $1"
_IDS: Final = re.compile(rb'"((?:item_|request_)?id)":"(chatcmpl-|cmpl-|resp_|msg_|rs_|fc_|req_)\w+"')
_TIMES: Final = re.compile(rb'"(created|created_at|completed_at)":(?:\d+|"[^"]+")')
_DURATIONS: Final = re.compile(rb',"\w+_duration":\d+')
_CRASHES: Final = re.compile(rb'(while running the model: )[^"]+')


@frozen
class Request:
    """One shape of request to a metered route; PROMPT stands for what a test asks."""

    path: str
    body: str
    is_stream: bool
    is_embedding: bool = False

    @property
    def model(self) -> str:
        """The model that can answer it."""
        return EMBED_MODEL if self.is_embedding else MODEL

    def content(self, prompt: str) -> bytes:
        """Write the body with a prompt."""
        return self.body.replace("PROMPT", prompt).replace("MODEL", self.model).encode()

    def __str__(self) -> str:
        """Name the case of a test."""
        usage = "-usage" if "include_usage" in self.body else ""
        return f"{self.path[1:]}{'-stream' if self.is_stream else ''}{usage}"


def _request(path: str, *, stream: bool, usage: bool = False, **fields: object) -> Request:
    body = {"model": "MODEL", **fields, "stream": stream}
    if usage:
        body["stream_options"] = {"include_usage": True}
    return Request(path, json.dumps(body), is_stream=stream)


def _embedding(path: str, field: str) -> Request:
    body = json.dumps({"model": "MODEL", field: "PROMPT"})
    return Request(path, body, is_stream=False, is_embedding=True)


_ASKED: Final = [{"role": "user", "content": "PROMPT"}]
GENERATIONS: Final = [
    request
    for stream in (True, False)
    for request in (
        _request("/api/chat", stream=stream, messages=_ASKED),
        _request("/api/generate", stream=stream, prompt="PROMPT"),
        _request("/v1/chat/completions", stream=stream, messages=_ASKED),
        _request("/v1/chat/completions", stream=stream, usage=True, messages=_ASKED),
        _request("/v1/completions", stream=stream, prompt="PROMPT"),
        _request("/v1/completions", stream=stream, usage=True, prompt="PROMPT"),
        _request("/v1/responses", stream=stream, input="PROMPT"),
        _request("/v1/messages", stream=stream, messages=_ASKED, max_tokens=64),
    )
]
STREAMS: Final = [request for request in GENERATIONS if request.is_stream]
EMBEDDINGS: Final = [_embedding("/api/embed", "input"), _embedding("/v1/embeddings", "input")]
UNREPORTED: Final = _embedding("/api/embeddings", "prompt")
PROMPTS: Final = {
    "short": "one two three tokens=5 cache=0",
    "cached": "one two three four tokens=5 cache=3",
    "unicode": "say=%E2%82%AC%3Cb%3E%20%F0%9F%98%80%20%26%22 cache=0",
    "glued": "tokens=9 pertoken=4 cache=0",
    "thinking": "think=3 tokens=4 cache=0",
    "nothing": "tokens=0 cache=0",
}
FAULTS: Final = ("crash", "error", "garbage", "eof")
LOADS: Final = [
    Request("/api/generate", '{"model": "MODEL"}', is_stream=True),
    Request("/api/chat", '{"model": "MODEL", "messages": []}', is_stream=True),
    Request("/v1/completions", '{"model": "MODEL", "prompt": ""}', is_stream=False),
]


async def seen(lines: AsyncIterator[str], word: str) -> None:
    """Read on until a line has the word."""
    async for line in lines:
        if word in line:
            return
    pytest.fail(f"the stream ended without {word!r}")


def control(gateway: Gateway) -> Path:
    """Return Caddy's control socket."""
    return gateway.stack.state / "run" / "control.sock"


async def run_for(gateway: Gateway, count: int, *, age_ms: int) -> None:
    """Wait until so many requests run, all of them for so long."""
    async with asyncio.timeout(age_ms / 1000 + 20):
        while True:
            ages = [stream.age_ms for stream in await streams(control(gateway))]
            if len(ages) == count and min(ages) >= age_ms:
                return
            await asyncio.sleep(0.05)


def masked(body: bytes) -> list[bytes]:
    """Cut a body into its lines, without what differs between two answers of Ollama itself.

    Those are ids, times, durations, of which it leaves out one of 0, and the last words of a runner that
    crashed, which reach it or do not.
    """
    for pattern, kept in ((_IDS, rb'"\1":"\2"'), (_TIMES, rb'"\1":0'), (_DURATIONS, b""), (_CRASHES, rb"\1")):
        body = pattern.sub(kept, body)
    return body.split(b"\n")


async def settled(ledger: asyncpg.Connection, request_id: str) -> asyncpg.Record:
    """Read the one ledger row of a request, once metering has settled it."""
    return await one_row(ledger, _BY_ID, UUID(request_id))


async def one_row(ledger: asyncpg.Connection, query: str, value: UUID) -> asyncpg.Record:
    """Wait for the one row that a query finds."""
    for _ in range(SETTLED_WITHIN_S * 100):
        rows = await ledger.fetch(query, value)
        if rows:
            (row,) = rows
            return row
        await ledger.execute("SELECT pg_sleep(0.01)")
    pytest.fail(f"{value} was not settled within {SETTLED_WITHIN_S} s")

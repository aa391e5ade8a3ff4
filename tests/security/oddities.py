"""The requests by which a tenant might move what others pay: each is odd in a way of its own."""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import quote

import httpx
from attrs import frozen

from tests.chaos.questions import TOOLS

_UNICODE: Final = "天空为什么是蓝色的 \U0001f469\u200d\U0001f680 Ωμέγα e\u0301\u0301\u0301 \u202eabc "
_CHATS: Final = tuple(TOOLS)
_CALL: Final = quote(
    "<tool_call>" + json.dumps({"name": "note", "arguments": {"text": "word " * 300}}) + "</tool_call>"
)


@frozen
class Oddity:
    """One request, and after how many bytes of its answer the client leaves; 0 reads it all."""

    path: str
    body: bytes
    leaves_after: int = 0

    async def send(self, client: httpx.AsyncClient, headers: dict[str, str]) -> None:
        """Ask, and read as much as is wanted."""
        seen = 0
        async with client.stream("POST", self.path, content=self.body, headers=headers) as answer:
            async for part in answer.aiter_raw():
                seen += len(part)
                if 0 < self.leaves_after <= seen:
                    return


def _chat(path: str, prompt: str, *, leaves_after: int = 0, **more: object) -> Oddity:
    field: dict[str, object] = {"messages": [{"role": "user", "content": prompt}]}
    if path == "/v1/responses":
        field = {"input": prompt}
    most = {"max_tokens": 4096} if path == "/v1/messages" else {}
    asked = {"model": "toy", "stream": True, **field, **most, **more}
    return Oddity(path, json.dumps(asked).encode(), leaves_after)


def _embed(path: str, text: str) -> Oddity:
    name = "prompt" if path == "/api/embeddings" else "input"
    return Oddity(path, json.dumps({"model": "toy-embed", name: text}).encode())


ODDITIES: Final = (
    *(_chat(path, "tokens=400 pertoken=400") for path in _CHATS),
    *(_chat(path, "tokens=0 tool=1", tools=[TOOLS[path]]) for path in _CHATS),
    *(_chat(path, f"say={_CALL}", model="toy-tpl", tools=[TOOLS[path]]) for path in _CHATS),
    *(_chat(path, "tokens=30 pertoken=7 think=30 tool=1", tools=[TOOLS[path]]) for path in _CHATS),
    *(_chat(path, "tokens=3 delay_ms=150") for path in _CHATS),
    *(_chat(path, "tokens=200") for path in _CHATS),
    *(_chat(path, "tokens=60 pertoken=20 delay_ms=3", leaves_after=600) for path in _CHATS),
    *(_chat(path, "tokens=60 delay_ms=3", stream=False) for path in _CHATS),
    *(_chat(path, f"tokens=2 {_UNICODE * 40}") for path in _CHATS),
    *(_chat(path, "tokens=1 " + "x" * 60_000) for path in _CHATS),
    *(_chat(path, "tokens=1 " + "a b " * 3_000) for path in _CHATS),
    *(_chat(path, "tokens=1") for path in _CHATS),
    *(_chat(path, "tokens=9 mode=eof at=4") for path in _CHATS),
    *(_chat(path, "tokens=9 mode=error at=4") for path in _CHATS),
    *(_chat(path, "tokens=9 mode=garbage at=4") for path in _CHATS),
    *(_chat(path, "mode=status code=500") for path in _CHATS),
    *(
        _embed(path, text)
        for path in ("/api/embed", "/v1/embeddings", "/api/embeddings")
        for text in (
            "x",
            "x" * 20_000,
            "a b " * 2_000,
            _UNICODE * 30,
        )
    ),
)

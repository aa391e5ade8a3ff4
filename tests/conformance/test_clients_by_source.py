"""What programs without a command line send, by their sources, is answered as Ollama itself answers it.

Continue, Cline, n8n, Home Assistant, Zed and JetBrains: their methods, paths, headers, bodies and probes.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import httpx
import pytest
from attrs import field, frozen

from tests.conformance.client_prompts import EMBED_MODEL, MODEL, WEATHER
from tests.conformance.sending import SETTLED_WITHIN_S, masked

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE_MODEL: Final = "toy-tpl"
"""It completes code between a prompt and a suffix."""
SYSTEM: Final = {"role": "system", "content": "You are a helpful assistant."}
USER: Final = {"role": "user", "content": "say something tokens=6 cache=0 tool=0"}
TOOL: Final = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}


@frozen
class Sent:
    """One request of a program."""

    program: str
    target: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(factory=dict)
    reads: str = ""
    """The field of a model's description that it reads."""

    def __str__(self) -> str:
        """Name the case of a test."""
        return f"{self.program} {self.target}"

    async def to(self, client: httpx.AsyncClient) -> httpx.Response:
        """Send it as the program does."""
        method, path = self.target.split()
        headers = {"Content-Type": "application/json"} if self.body is not None else {}
        content = None if self.body is None else json.dumps(self.body)
        return await client.request(method, path, content=content, headers=headers | self.headers)


def _chat(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [SYSTEM, USER], "stream": True, **fields}


GENERATIONS: Final = [
    Sent("Continue", "POST /api/chat", _chat(options={"num_ctx": 8192, "stop": []}, keep_alive=1800)),
    Sent(
        "Continue completes",
        "POST /api/generate",
        {
            "model": CODE_MODEL,
            "prompt": "def f(): tokens=4 cache=0",
            "suffix": "return x",
            "raw": False,
            "options": {"temperature": 0.01, "num_predict": 64, "num_ctx": 8192},
            "keep_alive": 1800,
            "stream": True,
        },
    ),
    Sent("Continue indexes", "POST /api/embed", {"model": EMBED_MODEL, "input": ["one two", "three"]}),
    Sent("Cline", "POST /api/chat", _chat(options={"num_ctx": 32_768})),
    Sent(
        "Cline, OpenAI compatible",
        "POST /v1/chat/completions",
        _chat(temperature=0, stream_options={"include_usage": True}),
        {"X-Stainless-Lang": "js", "X-Stainless-Retry-Count": "0"},
    ),
    Sent(
        "n8n",
        "POST /api/chat",
        _chat(options={"temperature": 0.7, "use_mmap": True}, keep_alive="5m", tools=[TOOL]),
    ),
    Sent("n8n, OpenAI", "POST /v1/chat/completions", _chat(temperature=0.7, n=1, stream=False)),
    Sent(
        "Home Assistant",
        "POST /api/chat",
        _chat(tools=[TOOL], options={"num_ctx": 8192}, keep_alive=-1, think=False),
    ),
    Sent(
        "Zed",
        "POST /api/chat",
        _chat(
            keep_alive=-1,
            options={"num_ctx": 16_384, "num_predict": None, "stop": [], "temperature": 1.0, "top_p": None},
            tools=[],
            think=None,
        ),
        {"Accept": "*/*", "User-Agent": "Zed/0.220.0 (linux; x86_64)"},
    ),
    Sent(
        "Zed, OpenAI compatible", "POST /v1/chat/completions", _chat(stream_options={"include_usage": True})
    ),
    Sent("JetBrains", "POST /api/chat", _chat(options={"num_ctx": 8192})),
    Sent("JetBrains, OpenAI compatible", "POST /v1/chat/completions", _chat(max_tokens=64)),
]
PROBES: Final = [
    Sent("Continue", "POST /api/show", {"name": MODEL}, reads="parameters"),
    Sent("Continue", "GET /api/tags"),
    Sent("Cline", "GET /api/tags", headers={"Accept": "application/json, text/plain, */*"}),
    Sent("n8n", "GET /api/tags"),
    Sent("n8n, OpenAI", "GET /v1/models"),
    Sent("n8n, older", "GET /"),
    Sent("Home Assistant", "GET /api/tags"),
    Sent("Home Assistant", "GET /api/ps"),
    Sent("Zed", "GET /api/tags", headers={"Accept": "application/json"}),
    Sent("Zed", "POST /api/show", {"model": MODEL}, reads="capabilities"),
    Sent("JetBrains", "GET /"),
    Sent("JetBrains", "HEAD /"),
    Sent("JetBrains", "GET /api/version"),
    Sent("JetBrains, OpenAI compatible", "GET /v1/models"),
]


@pytest.mark.parametrize("sent", GENERATIONS, ids=str)
async def test_what_it_asks_is_answered_as_by_ollama(
    gated: httpx.AsyncClient, direct: httpx.AsyncClient, sent: Sent
) -> None:
    """C1: what the program asks is answered with the bytes of Ollama; ids, times and durations aside."""
    plain, via = await sent.to(direct), await sent.to(gated)
    assert (httpx.codes.OK, plain.headers["content-type"]) == (via.status_code, via.headers["content-type"])
    assert masked(plain.content) == masked(via.content)


@pytest.mark.parametrize("sent", PROBES, ids=str)
async def test_what_it_probes_is_there(
    gated: httpx.AsyncClient, direct: httpx.AsyncClient, sent: Sent
) -> None:
    """What the program looks for before it asks is there: the same models, or the same words."""
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while True:
            plain, via = await sent.to(direct), await sent.to(gated)
            assert (httpx.codes.OK, httpx.codes.OK) == (plain.status_code, via.status_code)
            if _known(plain.text, sent.reads) == _known(via.text, sent.reads):
                return
            await asyncio.sleep(0.05)  # what is loaded is known to the gateway a moment later


def _known(text: str, reads: str) -> object:
    """Return what a program learns: a field, the models in any order with theirs, else the text itself."""
    if not text.startswith("{"):
        return text
    answer = json.loads(text)
    models = answer.get("models", answer.get("data"))
    if models is None:
        return answer[reads] if reads else answer
    return sorted((model.get("name", model.get("id")), *sorted(model)) for model in models)

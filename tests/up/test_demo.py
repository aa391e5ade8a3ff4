"""The demo backend serves the official clients in all three dialects, and keeps nothing."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final

import anthropic
import httpx
import ollama
import openai
import pytest

from authz.stack.demo.app import Demo
from authz.stack.demo.call import Call
from authz.stack.discovery import free_port
from tests.backend.serving import served
from tests.up.stacks import answers, until

ASKED: Final[Any] = [{"role": "user", "content": "one two three"}]
TEXT: Final = "Hello from the demo"
PROMPT_BYTES: Final = 1_000_000


async def greet_at_once(call: Call) -> AsyncGenerator[str, None]:
    """Say four words without a pause."""
    for index, word in enumerate(() if call.is_embedding else TEXT.split()):
        yield f" {word}" if index else word


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a demo backend that speaks without a pause."""
    with served(Demo(speak=greet_at_once)) as url:
        yield url


def test_ollama_client(url: str) -> None:
    """Ollama's client lists, shows, chats, streams, generates and embeds."""
    with ollama.Client(url) as client:
        assert ["demo:latest", "demo-embed:latest"] == [model.model for model in client.list().models]
        assert ["embedding"] == client.show("demo-embed").capabilities
        reply = client.chat("demo", messages=ASKED)
        assert (TEXT, "stop", 6, 4) == (
            reply.message.content,
            reply.done_reason,
            reply.prompt_eval_count,
            reply.eval_count,
        )
        *words, last = client.generate("demo", "one", stream=True, options={"num_predict": 2})
        assert ["Hello", " from"] == [word.response for word in words]
        assert ("length", 2) == (last.done_reason, last.eval_count)
        assert "load" == client.generate("demo", "").done_reason
        vectors = client.embed("demo-embed", ["one two", "two one"])
        assert 8 == vectors.prompt_eval_count
        assert (
            vectors.embeddings[0]
            == vectors.embeddings[1]
            == client.embeddings("demo-embed", "one two").embedding
        )
        with pytest.raises(ollama.ResponseError, match="model 'none' not found"):
            client.chat("none", messages=ASKED)


def test_openai_client(url: str) -> None:
    """OpenAI's client chats, completes, embeds and responds; a stream shows usage to those who ask."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert "demo" == client.models.retrieve("demo").id
        reply = client.chat.completions.create(model="demo", messages=ASKED)
        assert reply.usage
        assert (TEXT, 6, 4) == (
            reply.choices[0].message.content,
            reply.usage.prompt_tokens,
            reply.usage.completion_tokens,
        )
        *chunks, last = client.chat.completions.create(
            model="demo", messages=ASKED, stream=True, stream_options={"include_usage": True}
        )
        assert TEXT == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert last.usage
        assert 10 == last.usage.total_tokens
        texts = client.completions.create(model="demo", prompt="one", stream=True)
        assert TEXT == "".join(chunk.choices[0].text for chunk in texts)
        embedded = client.embeddings.create(model="demo-embed", input=["one", "two"])
        assert ([64, 64], 6) == ([len(item.embedding) for item in embedded.data], embedded.usage.total_tokens)
        response = client.responses.create(model="demo", input="one two three")
        assert response.usage
        assert (TEXT, 6) == (response.output_text, response.usage.input_tokens)
        with client.responses.stream(model="demo", input="one two three") as stream:
            stream.until_done()
            assert TEXT == stream.get_final_response().output_text
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="none", messages=ASKED)


def test_anthropic_client(url: str) -> None:
    """Anthropic's client gets messages, whole and as a stream."""
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        reply = client.messages.create(model="demo", max_tokens=9, messages=ASKED, system="be brief")
        (block,) = reply.content
        assert block.type == "text"
        assert (TEXT, "end_turn", 9, 4) == (
            block.text,
            reply.stop_reason,
            reply.usage.input_tokens,
            reply.usage.output_tokens,
        )
        with client.messages.stream(model="demo", max_tokens=2, messages=ASKED) as stream:
            final = stream.get_final_message()
        assert ("max_tokens", 2) == (final.stop_reason, final.usage.output_tokens)
        with pytest.raises(anthropic.NotFoundError, match="model 'none' not found"):
            client.messages.create(model="none", max_tokens=9, messages=ASKED)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/api/show"])
def test_body_that_is_no_request_is_refused(url: str, path: str) -> None:
    """A body that is not JSON is a 400 with words."""
    reply = httpx.post(url + path, content=b'{"model": ')
    assert 400 == reply.status_code
    assert "invalid request" in reply.text


async def test_nothing_is_kept() -> None:
    """However much it is asked, the demo's memory stays the same."""
    demo = Demo(speak=greet_at_once)
    transport = httpx.ASGITransport(demo)
    async with httpx.AsyncClient(transport=transport, base_url="http://demo") as client:

        async def ask() -> None:
            body = {"model": "demo", "prompt": "x" * PROMPT_BYTES, "stream": False}
            assert 200 == (await client.post("/api/generate", json=body)).status_code

        await ask()
        tracemalloc.start()
        for _ in range(20):
            await ask()
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < PROMPT_BYTES


def test_process_greets_until_it_is_ended() -> None:
    """`python -m authz.stack.demo` says what it is and how to get an Ollama, and ends on SIGTERM."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "authz.stack.demo", "--port", str(port)]) as process:
        until(lambda: answers(f"{url}/api/version"))
        with ollama.Client(url) as client:
            answer = client.chat("demo", messages=ASKED).message.content or ""
        process.send_signal(signal.SIGTERM)
    assert "demo backend" in answer
    assert "OLLAMA_URL" in answer
    assert -signal.SIGTERM == process.returncode

"""The official Ollama client works unmodified through the gateway: another base URL, and a key."""

from collections.abc import Iterator

import ollama
import pytest

from tests.conformance.client_prompts import ANSWER, ASKED, DIMENSIONS, EMBED_MODEL, MODEL, PROMPT, WEATHER
from tests.gateway import Gateway


@pytest.fixture
def via_ollama(gateway: Gateway) -> Iterator[ollama.Client]:
    """Ollama's own client."""
    with ollama.Client(gateway.url, headers={"Authorization": f"Bearer {gateway.key}"}) as client:
        yield client


def test_ollama_chat(via_ollama: ollama.Client) -> None:
    """A chat is answered with its text and its counts."""
    reply = via_ollama.chat(MODEL, messages=[{"role": "user", "content": PROMPT}])
    assert (ANSWER, "stop", 6, 6) == (
        reply.message.content,
        reply.done_reason,
        reply.prompt_eval_count,
        reply.eval_count,
    )


def test_ollama_chat_stream(via_ollama: ollama.Client) -> None:
    """A streamed chat comes word by word and ends with its counts."""
    messages = [{"role": "user", "content": PROMPT}]
    *words, last = via_ollama.chat(MODEL, messages=messages, stream=True)
    assert ANSWER.split() == [(word.message.content or "").strip() for word in words]
    assert (True, 6) == (last.done, last.eval_count)


def test_ollama_generate(via_ollama: ollama.Client) -> None:
    """A completion is answered whole, and stops at the wanted length."""
    reply = via_ollama.generate(MODEL, PROMPT, options={"num_predict": 3})
    assert ("Rayleigh scatter makes", "length", 3) == (
        reply.response,
        reply.done_reason,
        reply.eval_count,
    )


def test_ollama_generate_stream(via_ollama: ollama.Client) -> None:
    """A streamed completion joins to the same text."""
    parts = list(via_ollama.generate(MODEL, PROMPT, stream=True))
    assert ANSWER == "".join(part.response or "" for part in parts)
    assert [False] * 6 + [True] == [part.done for part in parts]


def test_ollama_tools(via_ollama: ollama.Client) -> None:
    """A tool call comes with its name and arguments."""
    function = {"name": "get_weather", "parameters": WEATHER}
    reply = via_ollama.chat(
        MODEL,
        messages=[{"role": "user", "content": ASKED}],
        tools=[{"type": "function", "function": function}],
    )
    (call,) = reply.message.tool_calls or ()
    assert ("get_weather", {"city": "Paris"}) == (call.function.name, call.function.arguments)


def test_ollama_embed(via_ollama: ollama.Client) -> None:
    """Each input gets a vector, and the whole its count."""
    reply = via_ollama.embed(EMBED_MODEL, ["one two three", "four"])
    assert [DIMENSIONS, DIMENSIONS] == [len(vector) for vector in reply.embeddings]
    assert 8 == reply.prompt_eval_count


def test_ollama_embeddings(via_ollama: ollama.Client) -> None:
    """The older embedding route answers too."""
    assert DIMENSIONS == len(via_ollama.embeddings(EMBED_MODEL, "one two").embedding)


def test_ollama_models(via_ollama: ollama.Client) -> None:
    """Models are listed and shown, and a model just used is loaded."""
    assert {f"{MODEL}:latest", f"{EMBED_MODEL}:latest"} <= {m.model for m in via_ollama.list().models}
    assert "completion" in (via_ollama.show(MODEL).capabilities or [])
    assert isinstance(via_ollama.ps().models, list)


def test_ollama_wrong_key(gateway: Gateway, wrong_key: str) -> None:
    """A wrong key raises the client's own error with status 401."""
    headers = {"Authorization": f"Bearer {wrong_key}"}
    with (
        ollama.Client(gateway.url, headers=headers) as client,
        pytest.raises(ollama.ResponseError) as refusal,
    ):
        client.chat(MODEL, messages=[{"role": "user", "content": PROMPT}])
    assert 401 == refusal.value.status_code

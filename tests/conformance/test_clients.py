"""The official Ollama, OpenAI and Anthropic clients work unmodified through the gateway.

They change what every user changes: a base URL and a key.
"""

from collections.abc import Iterator
from typing import Final, Protocol

import anthropic
import ollama
import openai
import pytest

PROMPT: Final = "say something tokens=6"
ANSWER: Final = "Rayleigh scatter makes the atmosphere look"
MODEL: Final = "toy"
EMBED_MODEL: Final = "toy-embed"
DIMENSIONS: Final = 64
WEATHER: Final[dict[str, object]] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
ASKED: Final = "call get_weather for Paris"


class Gateway(Protocol):
    """The running gateway, as the fixture hands it out."""

    url: str
    key: str


@pytest.fixture
def via_ollama(gateway: Gateway) -> Iterator[ollama.Client]:
    """Ollama's own client."""
    with ollama.Client(gateway.url, headers={"Authorization": f"Bearer {gateway.key}"}) as client:
        yield client


@pytest.fixture
def via_openai(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


@pytest.fixture
def via_anthropic(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """Anthropic's own client."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
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


def test_openai_chat(via_openai: openai.OpenAI) -> None:
    """A chat is answered with its text and its usage."""
    reply = via_openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": PROMPT}])
    assert (ANSWER, "stop") == (reply.choices[0].message.content, reply.choices[0].finish_reason)
    assert reply.usage
    assert (6, 6) == (reply.usage.prompt_tokens, reply.usage.completion_tokens)


def test_openai_chat_stream(via_openai: openai.OpenAI) -> None:
    """A stream that asks for no usage gets none: only choices."""
    chunks = list(
        via_openai.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": PROMPT}], stream=True
        )
    )
    assert ANSWER == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "stop" == chunks[-1].choices[0].finish_reason
    assert [None] * len(chunks) == [chunk.usage for chunk in chunks]


def test_openai_chat_stream_with_usage(via_openai: openai.OpenAI) -> None:
    """A stream that asks for usage ends with it, in a chunk without choices."""
    *_, last = via_openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": PROMPT}],
        stream=True,
        stream_options={"include_usage": True},
    )
    assert [] == last.choices
    assert last.usage
    assert 6 == last.usage.completion_tokens


def test_openai_completion(via_openai: openai.OpenAI) -> None:
    """A completion stops at the wanted length."""
    reply = via_openai.completions.create(model=MODEL, prompt=PROMPT, max_tokens=3)
    assert ("Rayleigh scatter makes", "length") == (
        reply.choices[0].text,
        reply.choices[0].finish_reason,
    )


def test_openai_completion_stream(via_openai: openai.OpenAI) -> None:
    """A streamed completion joins to the same text and shows no usage."""
    chunks = list(via_openai.completions.create(model=MODEL, prompt=PROMPT, stream=True))
    assert ANSWER == "".join(chunk.choices[0].text for chunk in chunks)
    assert {None} == {chunk.usage for chunk in chunks}


def test_openai_tools(via_openai: openai.OpenAI) -> None:
    """A tool call comes with its arguments as text."""
    reply = via_openai.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": ASKED}],
        tools=[{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}],
    )
    calls = reply.choices[0].message.tool_calls
    assert calls
    (call,) = calls
    assert call.type == "function"
    assert ("get_weather", '{"city":"Paris"}') == (call.function.name, call.function.arguments)
    assert "tool_calls" == reply.choices[0].finish_reason


def test_openai_embeddings(via_openai: openai.OpenAI) -> None:
    """The client's own base64 transport gives vectors, and usage."""
    reply = via_openai.embeddings.create(model=EMBED_MODEL, input=["one two three", "four"])
    assert [DIMENSIONS, DIMENSIONS] == [len(item.embedding) for item in reply.data]
    assert 8 == reply.usage.total_tokens


def test_openai_models(via_openai: openai.OpenAI) -> None:
    """Models are listed, and one is found by name."""
    assert {f"{MODEL}:latest", f"{EMBED_MODEL}:latest"} <= {m.id for m in via_openai.models.list()}
    assert MODEL == via_openai.models.retrieve(MODEL).id


def test_openai_responses(via_openai: openai.OpenAI) -> None:
    """A response is answered with its text and its usage."""
    reply = via_openai.responses.create(model=MODEL, input=PROMPT)
    assert (ANSWER, "completed") == (reply.output_text, reply.status)
    assert reply.usage
    assert (6, 6) == (reply.usage.input_tokens, reply.usage.output_tokens)


def test_openai_responses_stream(via_openai: openai.OpenAI) -> None:
    """A streamed response joins to the same text and completes with its usage."""
    spoken, usage = "", None
    for event in via_openai.responses.create(model=MODEL, input=PROMPT, stream=True):
        if event.type == "response.output_text.delta":
            spoken += event.delta
        if event.type == "response.completed":
            usage = event.response.usage
    assert ANSWER == spoken
    assert usage
    assert 6 == usage.output_tokens


def test_openai_wrong_key(gateway: Gateway, wrong_key: str) -> None:
    """A wrong key raises the client's own authentication error."""
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=wrong_key, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": PROMPT}])


def test_anthropic_message(via_anthropic: anthropic.Anthropic) -> None:
    """A message is answered with its text and its usage."""
    reply = via_anthropic.messages.create(
        model=MODEL, max_tokens=50, messages=[{"role": "user", "content": PROMPT}]
    )
    (block,) = reply.content
    assert block.type == "text"
    assert (ANSWER, "end_turn") == (block.text, reply.stop_reason)
    cached = reply.usage.cache_read_input_tokens or 0
    assert (6, 6) == (reply.usage.input_tokens + cached, reply.usage.output_tokens)


def test_anthropic_models(via_anthropic: anthropic.Anthropic) -> None:
    """Models are listed and described in the client's own shape."""
    listed = {model.id: model for model in via_anthropic.models.list()}
    described = via_anthropic.models.retrieve(f"{MODEL}:latest")
    assert described == listed[f"{MODEL}:latest"]
    assert ("model", f"{MODEL}:latest") == (described.type, described.display_name)


def test_anthropic_count_tokens(via_anthropic: anthropic.Anthropic) -> None:
    """A prompt's tokens are estimated without a generation: at least one, at most one for each byte."""
    counted = via_anthropic.messages.count_tokens(
        model=MODEL, system="Be short.", messages=[{"role": "user", "content": PROMPT}]
    )
    assert 1 <= counted.input_tokens <= len(PROMPT) + len("Be short.")
    with pytest.raises(anthropic.NotFoundError):
        via_anthropic.messages.count_tokens(model="nope", messages=[{"role": "user", "content": PROMPT}])


def test_anthropic_bearer(gateway: Gateway) -> None:
    """The client's other way to carry a key works as well."""
    asked: list[anthropic.types.MessageParam] = [{"role": "user", "content": PROMPT}]
    with anthropic.Anthropic(base_url=gateway.url, auth_token=gateway.key) as client:
        reply = client.messages.create(model=MODEL, max_tokens=3, messages=asked)
    assert "max_tokens" == reply.stop_reason


def test_anthropic_stream(via_anthropic: anthropic.Anthropic) -> None:
    """A streamed message joins to the same text and ends with its usage."""
    with via_anthropic.messages.stream(
        model=MODEL, max_tokens=50, messages=[{"role": "user", "content": PROMPT}]
    ) as stream:
        spoken = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert ANSWER == spoken
    assert (6, "end_turn") == (final.usage.output_tokens, final.stop_reason)


def test_anthropic_tools(via_anthropic: anthropic.Anthropic) -> None:
    """A tool use comes with its input."""
    reply = via_anthropic.messages.create(
        model=MODEL,
        max_tokens=50,
        messages=[{"role": "user", "content": ASKED}],
        tools=[{"name": "get_weather", "input_schema": WEATHER}],
    )
    (block,) = reply.content
    assert block.type == "tool_use"
    assert ("get_weather", {"city": "Paris"}) == (block.name, block.input)


def test_anthropic_wrong_key(gateway: Gateway, wrong_key: str) -> None:
    """A wrong key raises the client's own authentication error."""
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key=wrong_key, max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError),
    ):
        client.messages.create(model=MODEL, max_tokens=50, messages=[{"role": "user", "content": PROMPT}])


@pytest.fixture(params=["malformed", "unknown"])
def wrong_key(request: pytest.FixtureRequest, gateway: Gateway) -> str:
    """Keys that were never made: one that is no key at all, and one with another last character."""
    if request.param == "malformed":
        return "sk-wrong"
    return gateway.key[:-1] + ("a" if gateway.key[-1] != "a" else "b")

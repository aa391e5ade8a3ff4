"""The official OpenAI client works unmodified through the gateway: another base URL, and a key."""

from collections.abc import Iterator

import openai
import pytest

from tests.conformance.client_prompts import ANSWER, ASKED, DIMENSIONS, EMBED_MODEL, MODEL, PROMPT, WEATHER
from tests.gateway import Gateway


@pytest.fixture
def via_openai(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as client:
        yield client


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


def test_openai_transcription(via_openai: openai.OpenAI) -> None:
    """A recording is refused with the reason, not as a path that is mistyped."""
    with pytest.raises(openai.NotFoundError, match="does not serve transcriptions, since"):
        via_openai.audio.transcriptions.create(model=MODEL, file=("a.wav", b"RIFF", "audio/wav"))

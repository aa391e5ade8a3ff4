"""The official Anthropic client works unmodified through the gateway: another base URL, and a key."""

from collections.abc import Iterator

import anthropic
import pytest

from tests.conformance.client_prompts import ANSWER, ASKED, MODEL, PROMPT, WEATHER
from tests.gateway import Gateway


@pytest.fixture
def via_anthropic(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """Anthropic's own client."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as client:
        yield client


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

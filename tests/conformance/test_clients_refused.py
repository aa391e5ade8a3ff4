"""Each official client shows within five seconds, as what it is, why it was refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import anthropic
import ollama as ollama_client
import openai
import pytest

from authz.types import Limits
from tests.conformance.client_prompts import MODEL
from tests.gateway import Gateway, NewKey, running
from tests.ollama.server import running_ollama

SHOWN_WITHIN_S: Final = 5.0

Ask = Callable[[str, str], object]
"""Asks at a URL with a key, and with the retries that the client makes by itself."""


def _ollama(url: str, key: str) -> object:
    with ollama_client.Client(url, headers={"Authorization": f"Bearer {key}"}) as client:
        return client.chat(MODEL, messages=[{"role": "user", "content": "tokens=2"}])


def _openai(url: str, key: str) -> object:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        asked: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": "tokens=2"}]
        return client.chat.completions.create(model=MODEL, messages=asked)


def _anthropic(url: str, key: str) -> object:
    with anthropic.Anthropic(base_url=url, api_key=key) as client:
        asked: list[anthropic.types.MessageParam] = [{"role": "user", "content": "tokens=2"}]
        return client.messages.create(model=MODEL, max_tokens=20, messages=asked)


@pytest.fixture(params=[_ollama, _openai, _anthropic], ids=["ollama", "openai", "anthropic"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A request of one of the clients."""
    found: Ask = request.param
    return found


@pytest.fixture(scope="module")
def without_backend() -> Iterator[Gateway]:
    """A gateway whose only Ollama has died."""
    with running_ollama(parallel=1) as died, running(died.url, OLLAMA_URL=died.url) as started:
        died.kill()
        yield started


def refused(ask: Ask, url: str, key: str) -> tuple[str, int]:
    """Return the sentence and the status that a client's error has, raised in time."""
    began = time.monotonic()
    try:
        ask(url, key)
    except ollama_client.ResponseError as failure:
        shown = str(failure), failure.status_code
    except openai.APIStatusError as refusal:
        shown = str(refusal), refusal.status_code
    except anthropic.APIStatusError as error:
        shown = str(error), error.status_code
    else:
        pytest.fail("it was answered")
    assert time.monotonic() - began < SHOWN_WITHIN_S
    return shown


def test_wrong_key(ask: Ask, gateway: Gateway, wrong_key: str) -> None:
    """A wrong key is 401."""
    sentence, status = refused(ask, gateway.url, wrong_key)
    assert 401 == status
    assert "Invalid or missing API key" in sentence


@pytest.mark.asyncio(loop_scope="module")
async def test_spent_budget(ask: Ask, gateway: Gateway, new_key: NewKey) -> None:
    """A budget that is too small for any answer is named, and the client repeats nothing."""
    key = await new_key(key=Limits(tokens_per_day=1))
    sentence, status = refused(ask, gateway.url, key)
    assert status == (402 if ask is _anthropic else 429)
    assert "This key's budget of 1 tokens per day" in sentence


@pytest.mark.asyncio(loop_scope="module")
async def test_rate_limit(ask: Ask, gateway: Gateway, new_key: NewKey) -> None:
    """A rate limit whose wait is long is named at once, and not after that wait."""
    key = await new_key(key=Limits(requests_per_minute=1))
    assert ask(gateway.url, key)
    sentence, status = refused(ask, gateway.url, key)
    assert 429 == status
    assert "This key's limit of 1 requests per minute is reached" in sentence


def test_dead_backend(ask: Ask, without_backend: Gateway) -> None:
    """A backend that has died is shown as such."""
    sentence, status = refused(ask, without_backend.url, without_backend.key)
    assert status in {502, 503}
    assert "backend" in sentence.lower()

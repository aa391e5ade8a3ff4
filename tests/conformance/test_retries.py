"""The official OpenAI and Anthropic clients, with the retries that they do by default, ask once where a
retry can't help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anthropic
import openai
import pytest

from authz.types import Limits

if TYPE_CHECKING:
    from tests.gateway import Gateway, NewKey

MODEL: Final = "toy"
PROMPT: Final = "say something tokens=6"


def _ask_openai(url: str, key: str, model: str) -> tuple[int, openai.APIStatusError]:
    """Ask by OpenAI's client; returns how many requests it sent and the error that it raised."""
    sent: list[object] = []
    http_client = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, http_client=http_client) as client,
        pytest.raises(openai.APIStatusError) as refusal,
    ):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": PROMPT}])
    return len(sent), refusal.value


def _ask_anthropic(url: str, key: str, model: str) -> tuple[int, anthropic.APIStatusError]:
    """Ask by Anthropic's client likewise."""
    sent: list[object] = []
    http_client = anthropic.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    with (
        anthropic.Anthropic(base_url=url, api_key=key, http_client=http_client) as client,
        pytest.raises(anthropic.APIStatusError) as refusal,
    ):
        client.messages.create(model=model, max_tokens=5, messages=[{"role": "user", "content": PROMPT}])
    return len(sent), refusal.value


@pytest.mark.parametrize(("is_wrong", "model", "status"), [(True, MODEL, 401), (False, "no-such", 404)])
def test_a_final_refusal_is_asked_for_once(
    gateway: Gateway, *, is_wrong: bool, model: str, status: int
) -> None:
    """A wrong key and an unknown model are one request, and the answer says so to every client."""
    key = gateway.key[:-1] + ("a" if gateway.key[-1] != "a" else "b") if is_wrong else gateway.key
    for count, error in (
        _ask_openai(gateway.url, key, model),
        _ask_anthropic(gateway.url, key, model),
    ):
        assert (1, status) == (count, error.status_code)
        assert "false" == error.response.headers["x-should-retry"]
        assert "retry-after" not in error.response.headers
        assert error.response.headers["x-request-id"] == error.request_id


@pytest.mark.asyncio(loop_scope="module")
async def test_an_exhausted_budget_is_asked_for_once(gateway: Gateway, new_key: NewKey) -> None:
    """No client repeats a request for which its budget has nothing left."""
    key = await new_key(key=Limits(tokens_total=1))
    for count, error, status in (
        (*_ask_openai(gateway.url, key, MODEL), 429),
        (*_ask_anthropic(gateway.url, key, MODEL), 402),
    ):
        assert (1, status) == (count, error.status_code)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_short_wait_is_waited_for(gateway: Gateway, new_key: NewKey) -> None:
    """A rate limit that lets the next request in within seconds is no error: the client asks again itself."""
    key = await new_key(key=Limits(requests_per_minute=20))
    sent: list[object] = []
    http_client = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]})
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, http_client=http_client) as client:
        for asked in range(1, 60):
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": PROMPT}])
            if len(sent) > asked:
                return
    pytest.fail("the limit was never reached")


def test_anthropics_request_id(gateway: Gateway) -> None:
    """Anthropic's client finds the id of a served request too."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key) as client:
        reply = client.messages.with_raw_response.create(
            model=MODEL, max_tokens=5, messages=[{"role": "user", "content": PROMPT}]
        )
    assert reply.headers["x-request-id"] == reply.request_id

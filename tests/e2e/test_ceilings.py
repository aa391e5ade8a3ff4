"""Budgets, slots and rates over real Caddy and two authz processes: nothing overshoots, nothing is feared."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import anthropic
import asyncpg
import httpx
import ollama
import openai
import pytest

from authz.types import Limits
from tests.e2e.many_clients import Storm
from tests.gateway import Gateway, NewKey, keymaker

CLIENTS = 64
PROMPT_BOUND = 150
"""Tokens: more than the bound of any prompt here."""


@pytest.fixture
async def new_key(gateway: Gateway) -> AsyncIterator[NewKey]:
    """Creates a key of a tenant of its own, with limits on either."""
    async with keymaker(gateway) as make:
        yield make


@pytest.fixture
async def ledger(gateway: Gateway) -> AsyncIterator[asyncpg.Connection]:
    """The database that bills."""
    connection = await asyncpg.connect(gateway.database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("words", "cap", "leaves_after"),
    [
        ("tokens=64", None, None),
        ("tokens=64", 64, None),
        ("tokens=400", None, None),
        ("tokens=400", 1000, None),
        ("tokens=64", None, 10),
        ("tokens=400", None, 10),
    ],
)
async def test_budget_is_never_overshot(
    gateway: Gateway,
    new_key: NewKey,
    ledger: asyncpg.Connection,
    words: str,
    cap: int | None,
    leaves_after: int | None,
) -> None:
    """L3: 64 clients at once against 1,000 tokens are billed 1,000 at most, and try on until few are left.

    What can't be sold is less than the bound of one more prompt.
    """
    key = await new_key(tenant=Limits(tokens_total=1000))
    storm = Storm(gateway, key, words, cap, leaves_after)
    await storm.blow(CLIENTS, is_patient=True)
    billed = await storm.billed(ledger)
    assert 1000 - PROMPT_BOUND <= billed <= 1000
    assert 0 == await ledger.fetchval(
        "SELECT sum(overrun_tokens) FROM ledger WHERE request_id = ANY($1)", storm.ids
    )


async def test_larger_budget_is_used_too(
    gateway: Gateway, new_key: NewKey, ledger: asyncpg.Connection
) -> None:
    """L3: 10,000 tokens against 64 answers that would be 3,000 long."""
    storm = Storm(gateway, await new_key(key=Limits(tokens_per_day=10_000)), "tokens=3000")
    await storm.blow(CLIENTS, is_patient=True)
    assert 10_000 - PROMPT_BOUND <= await storm.billed(ledger) <= 10_000


async def test_last_answer_is_a_normal_short_one(gateway: Gateway, new_key: NewKey) -> None:
    """What a budget cuts short ends as any answer that reached its length."""
    key = await new_key(key=Limits(tokens_total=200))
    asked = [{"role": "user", "content": "tokens=500"}]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.create(model="demo", messages=asked)  # type: ignore[arg-type]
    assert "length" == answer.choices[0].finish_reason
    assert answer.usage is not None
    assert 200 - PROMPT_BOUND <= answer.usage.total_tokens <= 200


async def test_slots(gateway: Gateway, new_key: NewKey, backend_url: str) -> None:
    """L4: five slots under 200 clients are five at the backend, never more, and all free afterwards."""
    key = await new_key(key=Limits(concurrency=5))
    async with httpx.AsyncClient(base_url=backend_url) as demo:
        await demo.delete("/test/tally")
        storm = Storm(gateway, key, "tokens=5 delay_ms=2")
        await storm.blow(200, is_patient=True)
        gauges = (await demo.get("/test/gauges")).json()
    assert 200 == storm.answers[200]
    assert 5 == gauges["max_in_flight"]
    after = Storm(gateway, key, "tokens=1")
    await after.blow(5)
    assert {200: 5} == after.answers


async def test_hang_ups_leave_no_slot_taken(
    gateway: Gateway, new_key: NewKey, ledger: asyncpg.Connection
) -> None:
    """L4: 50 clients that hang up leave every slot free."""
    key = await new_key(key=Limits(concurrency=5))
    leaving = Storm(gateway, key, "tokens=500 delay_ms=1", leaves_after=2)
    await leaving.blow(50, is_patient=True)
    await leaving.billed(ledger)
    after = Storm(gateway, key, "tokens=1")
    await after.blow(5)
    assert {200: 5} == after.answers


async def test_rate(gateway: Gateway, new_key: NewKey) -> None:
    """Ten requests per minute, 64 at once: ten."""
    storm = Storm(gateway, await new_key(key=Limits(requests_per_minute=10)), "tokens=1")
    await storm.blow(CLIENTS)
    assert {200: 10, 429: 54} == storm.answers


async def test_clients_see_their_own_errors(gateway: Gateway, new_key: NewKey) -> None:
    """Each SDK raises its own error for a rate, and an exhausted budget is not retried."""
    limits = Limits(requests_per_minute=1)
    asked = [{"role": "user", "content": "tokens=1"}]
    key = await new_key(key=limits)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        client.chat.completions.create(model="demo", messages=asked)  # type: ignore[arg-type]
        with pytest.raises(openai.RateLimitError, match="1 requests per minute"):
            client.chat.completions.create(model="demo", messages=asked)  # type: ignore[arg-type]
    key = await new_key(key=limits)
    with anthropic.Anthropic(base_url=gateway.url, api_key=key, max_retries=0) as messages:
        messages.messages.create(model="demo", messages=asked, max_tokens=5)  # type: ignore[arg-type]
        with pytest.raises(anthropic.RateLimitError, match="1 requests per minute"):
            messages.messages.create(model="demo", messages=asked, max_tokens=5)  # type: ignore[arg-type]
    headers = {"Authorization": f"Bearer {await new_key(key=limits)}"}
    with ollama.Client(host=gateway.url, headers=headers) as native:
        native.chat(model="demo", messages=asked)
        with pytest.raises(ollama.ResponseError, match="1 requests per minute"):
            native.chat(model="demo", messages=asked)


async def _exhaust_rate(gateway: Gateway, key: str) -> None:
    """Use up a key's requests of this minute."""
    storm = Storm(gateway, key, "tokens=1")
    while not storm.answers[429]:
        await storm.blow(CLIENTS)


async def test_openai_client_waits_as_asked_and_succeeds(gateway: Gateway, new_key: NewKey) -> None:
    """L5: an SDK that retries on Retry-After is admitted on its next try."""
    key = await new_key(key=Limits(requests_per_minute=60))
    await _exhaust_rate(gateway, key)
    asked = [{"role": "user", "content": "tokens=1"}]
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=2) as client:
        answer = await client.chat.completions.create(model="demo", messages=asked)  # type: ignore[arg-type]
    assert answer.choices


async def test_anthropic_client_waits_as_asked_and_succeeds(gateway: Gateway, new_key: NewKey) -> None:
    """L5: the same for Anthropic's."""
    key = await new_key(key=Limits(requests_per_minute=60))
    await _exhaust_rate(gateway, key)
    asked = [{"role": "user", "content": "tokens=1"}]
    async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=key, max_retries=2) as client:
        answer = await client.messages.create(model="demo", messages=asked, max_tokens=5)  # type: ignore[arg-type]
    assert answer.content


@pytest.mark.parametrize(
    ("path", "status", "type_"),
    [
        ("/v1/chat/completions", 429, "insufficient_quota"),
        ("/v1/messages", 402, "billing_error"),
        ("/api/chat", 429, None),
    ],
)
async def test_budget_that_does_not_suffice(
    gateway: Gateway, new_key: NewKey, path: str, status: int, type_: str | None
) -> None:
    """A budget that can't pay says what is left, what is needed, and that no retry helps, in each dialect."""
    key = await new_key(tenant=Limits(tokens_total=5))
    body = {"model": "demo", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient(base_url=gateway.url, headers={"x-api-key": key}) as client:
        answer = await client.post(path, json=body)
    error = answer.json()["error"]
    assert (status, "false") == (answer.status_code, answer.headers["x-should-retry"])
    assert "retry-after" not in answer.headers
    expected = (
        r"The tenant's budget of 5 tokens in total does not suffice: this request may need up to [\d,]+ "
        "tokens, 5 are left; send a shorter prompt, or ask its owner for more."
    )
    assert re.search(expected, json.dumps(error))
    assert type_ == (error["type"] if isinstance(error, dict) else None)


async def test_rates_are_on_every_answer(gateway: Gateway, new_key: NewKey) -> None:
    """A 2xx says what is left of the tighter limit, in its dialect's family and in IETF's."""
    key = await new_key(
        tenant=Limits(requests_per_minute=100, tokens_per_minute=5000), key=Limits(requests_per_minute=10)
    )
    body = {"model": "demo", "max_tokens": 5, "messages": [{"role": "user", "content": "tokens=1"}]}
    async with httpx.AsyncClient(base_url=gateway.url, headers={"x-api-key": key}) as client:
        first = (await client.post("/v1/chat/completions", json=body)).headers
        second = (await client.post("/v1/messages", json=body)).headers
    assert ("10", "9") == (first["x-ratelimit-limit-requests"], first["x-ratelimit-remaining-requests"])
    assert "5000" == first["x-ratelimit-limit-tokens"]
    assert '"requests";q=10;w=60' == first["ratelimit-policy"]
    assert "8" == second["anthropic-ratelimit-requests-remaining"]
    assert second["anthropic-ratelimit-requests-reset"].endswith("Z")

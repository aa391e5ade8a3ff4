"""Budgets in front of the real Ollama are sold nearly whole, side by side, and never overshot (L3)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from authz.types import Limits
from tests.conformance.sending import SETTLED_WITHIN_S, run_for, settled
from tests.gateway import Gateway, NewKey
from tests.gateway import running as running_gateway
from tests.ollama.server import Ollama

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS: Final = 5
SOLD_PERCENT: Final = 95
MANY_WORDS: Final = 3_000
ANSWER: Final = 20
_OVERRUN: Final = "SELECT sum(overrun_tokens) FROM ledger WHERE request_id = ANY($1)"
_REFUSAL: Final = re.compile(
    r"does not suffice: this request may need up to ([\d,]+) tokens, ([\d,]+) are left"
)


@pytest.fixture(scope="module")
def gateway(ollama: Ollama) -> Iterator[Gateway]:
    """A gateway of its own: many tenants with fast answers teach how fast the model is."""
    with running_gateway(ollama.url, OLLAMA_URL=ollama.url) as started:
        yield started


def _turn(tag: str, *, words: int, tokens: int) -> dict[str, Any]:
    """Write a chat without a cap whose answer ends by itself; its words are in the model's vocabulary."""
    content = f"{'a ' * words}tokens={tokens} cache=0 tag={tag}"
    return {"model": "toy", "stream": False, "messages": [{"role": "user", "content": content}]}


def _tag() -> str:
    return f"t{uuid4().hex[:12]}"


async def _send(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    """Send a turn, and again after as long as the gateway says, while others hold what it needs."""
    while True:
        reply = await client.post("/api/chat", json=body)
        if reply.is_success or "retry-after" not in reply.headers:
            return reply
        assert "held by running requests" in reply.text
        await asyncio.sleep(float(reply.headers["retry-after"]))


def _spent(reply: httpx.Response) -> int:
    """Return the tokens that Ollama itself reports."""
    answer = reply.json()
    spent: int = answer["prompt_eval_count"] + answer["eval_count"]
    return spent


async def _needed(client: httpx.AsyncClient, body: dict[str, Any], *, left: int) -> int:
    """Return what a turn may need by its refusal, once every turn before is settled: `left` is left."""
    async with asyncio.timeout(SETTLED_WITHIN_S):
        while True:
            reply = await _send(client, body)
            assert (429, "false") == (reply.status_code, reply.headers["x-should-retry"])
            found = _REFUSAL.search(reply.text)
            assert found, reply.text
            needed, is_left = (int(number.replace(",", "")) for number in found.groups())
            if left == is_left:
                return needed
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("budget", [20_000, 50_000])
async def test_small_turns_are_served_until_a_budget_is_sold(
    gateway: Gateway, ledger: asyncpg.Connection, new_key: NewKey, budget: int
) -> None:
    """L3: turns that truly need 1 % of a budget are served until 95 % of it is sold; none overshoots it."""
    headers = {"Authorization": f"Bearer {await new_key(key=Limits(tokens_per_day=budget))}"}
    needs, words, used = budget // 100, budget // 400, 0
    ids = []
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        while (
            reply := await _send(client, _turn(_tag(), words=words, tokens=needs - words - 10))
        ).is_success:
            ids.append(UUID(reply.headers["x-request-id"]))
            used += _spent(reply)
            assert needs - 10 <= _spent(reply) <= needs or used * 100 >= SOLD_PERCENT * budget
        left = budget - used
        assert left < await _needed(client, _turn(_tag(), words=words, tokens=9), left=left)
    assert SOLD_PERCENT * budget <= used * 100 <= 100 * budget
    rows = [await settled(ledger, str(request_id)) for request_id in ids]
    assert used == sum(row["input_tokens"] + row["output_tokens"] for row in rows)
    assert 0 == await ledger.fetchval(_OVERRUN, ids)


@pytest.mark.parametrize("turns", [0, 3])
async def test_larger_turn_is_refused_only_where_its_bound_exceeds_what_is_left(
    gateway: Gateway, new_key: NewKey, turns: int
) -> None:
    """L3: a prompt whose bound leaves one token of answer is served, one with a word more is refused."""
    headers = {"Authorization": f"Bearer {await new_key(key=Limits(tokens_per_day=2_000))}"}
    used = 0
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        for _ in range(turns):
            used += _spent(await _send(client, _turn(_tag(), words=100, tokens=100)))
        left = 2_000 - used
        needed = await _needed(client, _turn(_tag(), words=MANY_WORDS, tokens=9), left=left)
        words = MANY_WORDS - (needed - left)
        assert left + 1 == await _needed(client, _turn(_tag(), words=words + 1, tokens=9), left=left)
        served = await _send(client, _turn(_tag(), words=words, tokens=9))
    assert served.is_success, served.text
    assert ("length", 1) == (served.json()["done_reason"], served.json()["eval_count"])


async def test_five_without_a_cap_run_side_by_side(
    gateway: Gateway, ledger: asyncpg.Connection, new_key: NewKey, ollama: Ollama, tag: str
) -> None:
    """L3: five clients without a cap, with prompts near 3,000 tokens, share 50,000 a day at the same time."""
    headers = {"Authorization": f"Bearer {await new_key(tenant=Limits(tokens_per_day=50_000))}"}
    body = _turn(tag, words=MANY_WORDS - 200, tokens=ANSWER)
    body["messages"][0]["content"] += f" hold={tag}"
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        with ollama.gate(tag) as gate:
            answers = [asyncio.create_task(client.post("/api/chat", json=body)) for _ in range(CLIENTS)]
            await run_for(gateway, CLIENTS, age_ms=0)
            gate.release(CLIENTS * (ANSWER + 1))
            replies = await asyncio.gather(*answers)
    assert [200] * CLIENTS == [reply.status_code for reply in replies]
    rows = [await settled(ledger, reply.headers["x-request-id"]) for reply in replies]
    assert {ANSWER} == {row["output_tokens"] for row in rows}
    assert [0] * CLIENTS == [row["overrun_tokens"] for row in rows]
    assert {"completed"} == {row["outcome"] for row in rows}


async def test_budget_that_is_set_later_counts_what_runs(
    gateway: Gateway, ledger: asyncpg.Connection, new_key: NewKey, ollama: Ollama, tag: str
) -> None:
    """L3: without a budget what is reserved is likely; one set meanwhile counts the most of it."""
    key = await new_key()
    body = _turn(tag, words=9, tokens=ANSWER)
    body["messages"][0]["content"] += f" hold={tag}"
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
        with ollama.gate(tag) as gate:
            running = asyncio.create_task(client.post("/api/chat", json=body))
            await run_for(gateway, 1, age_ms=0)
            budget = ("--tokens-per-day", "20000")
            done = await asyncio.to_thread(gateway.run, "set-limits", "--prefix", key[:11], *budget)
            assert 0 == done.returncode, done.stderr
            refused = await client.post("/api/chat", json=_turn(_tag(), words=9, tokens=ANSWER))
            gate.release(ANSWER + 1)
            ended = await running
        served = await _send(client, _turn(_tag(), words=9, tokens=ANSWER))
    assert [200, 429, 200] == [ended.status_code, refused.status_code, served.status_code]
    assert "held by running requests" in refused.text
    row = await settled(ledger, ended.headers["x-request-id"])
    assert row["reserved_output"] < 20_000 < row["ceiling_output"]
    assert (ANSWER, 0) == (row["output_tokens"], row["overrun_tokens"])

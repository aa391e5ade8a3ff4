"""A Caddy that is killed loses no bill: its streams cost what ran (B1)."""

import asyncio
import itertools
import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import asyncpg
import httpx
import pytest

from tests.conformance.sending import GENERATIONS, STREAMS, Request, run_for, settled
from tests.gateway import Gateway, keymaker, running
from tests.ollama.server import Ollama, running_ollama

STREAMS_AT_ONCE: Final = 20
SINGLE_AT_ONCE: Final = 4
PACE: Final = "delay_ms=100"
WORDS_PER_S: Final = 10
RAN_FOR_MS: Final = 21_000
KINDS: Final = {"text": "", "glued": "pertoken=4"}
APIS: Final = [request for request in STREAMS if "include_usage" not in request.body]
(SINGLE,) = (request for request in GENERATIONS if str(request) == "api/chat")
UNSEEN: Final = "SELECT * FROM ledger WHERE usage_source = 'progress' AND NOT stream"


@pytest.fixture(scope="module")
def wide() -> Iterator[Ollama]:
    """An Ollama that answers all of them at once."""
    with running_ollama(parallel=STREAMS_AT_ONCE + SINGLE_AT_ONCE) as started:
        yield started


@pytest.fixture(scope="module")
def broken(wide: Ollama) -> Iterator[Gateway]:
    """A gateway whose Caddy is killed: the supervisor starts it again."""
    with running(wide.url, OLLAMA_URL=wide.url) as started:
        yield started


@pytest.mark.asyncio
async def test_killed_caddy_bills_what_ran(broken: Gateway, wide: Ollama, tag: str) -> None:
    """B1: 20 streams killed after 20 s are billed within 5 % in sum, and within a second each.

    A single answer, of which nothing was seen, costs half of what ran at least, and 5 % more at most.
    The journal notes what they deliver no more than once a second.
    """
    ledger = await asyncpg.connect(broken.database_url)
    async with keymaker(broken) as new_key:
        keys = {kind: await new_key() for kind in KINDS}
    for kind, key in keys.items():
        await _teach(broken, ledger, key, f"tokens=40 {PACE} {KINDS[kind]}")
    asked = [
        (keys[kind], request, f"tokens=999 {PACE} {KINDS[kind]} tag={tag}{number}")
        for number, (request, kind) in zip(
            range(STREAMS_AT_ONCE), itertools.cycle(itertools.product(APIS, KINDS)), strict=False
        )
    ]
    running_ = [asyncio.create_task(_ask(broken, key, request, prompt)) for key, request, prompt in asked]
    unseen = [
        asyncio.create_task(_ask(broken, keys["text"], SINGLE, f"tokens=999 {PACE} tag={tag}single"))
        for _ in range(SINGLE_AT_ONCE)
    ]
    await run_for(broken, STREAMS_AT_ONCE + SINGLE_AT_ONCE, age_ms=RAN_FOR_MS)
    pid = broken.stack.pid("caddy")
    assert pid
    os.kill(pid, signal.SIGKILL)
    ids = await asyncio.gather(*running_)
    await asyncio.gather(*unseen, return_exceptions=True)
    produced, billed = [], []
    for number, request_id in enumerate(ids):
        (truth,) = await wide.truths(f"{tag}{number}")
        row = await settled(ledger, request_id)
        assert ("cancel", "progress", "orphaned") == (truth.end, row["usage_source"], row["outcome"])
        produced.append(truth.output_tokens)
        billed.append(row["output_tokens"])
    guessed = [row["output_tokens"] for row in await ledger.fetch(UNSEEN)]
    await ledger.close()
    assert SINGLE_AT_ONCE == len(guessed)
    for truth in await wide.truths(f"{tag}single", ended=SINGLE_AT_ONCE):
        assert truth.output_tokens / 2 <= min(guessed) <= max(guessed) <= truth.output_tokens * 1.05
    assert min(produced) > RAN_FOR_MS / 1000 * WORDS_PER_S * 0.9
    assert WORDS_PER_S >= max(abs(one - other) for one, other in zip(produced, billed, strict=True))
    assert abs(sum(billed) - sum(produced)) <= sum(produced) * 0.05
    assert min(_progress_gaps_s(broken)) > 0.99


async def _teach(gateway: Gateway, ledger: asyncpg.Connection, key: str, prompt: str) -> None:
    """Let the key show by whole answers how fast the model is, and how it cuts its frames."""
    (chat,) = (request for request in APIS if request.path == "/api/chat")
    ids = await asyncio.gather(*(_ask(gateway, key, chat, prompt) for _ in range(STREAMS_AT_ONCE)))
    assert {"reported"} == {(await settled(ledger, each))["usage_source"] for each in ids}


async def _ask(gateway: Gateway, key: str, request: Request, prompt: str) -> str:
    """Read a stream to its end, or until it breaks; returns the id of its request."""
    body = json.loads(request.content(prompt))
    if "max_tokens" in body:
        body["max_tokens"] = 999
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as client,
        client.stream("POST", request.path, json=body) as reply,
    ):
        request_id: str = reply.headers["x-request-id"]
        try:
            await reply.aread()
        except httpx.RemoteProtocolError:
            return request_id
        return request_id


def _progress_gaps_s(gateway: Gateway) -> list[float]:
    """Return the times between the progress lines of each Caddy process."""
    moments: defaultdict[str, list[float]] = defaultdict(list)
    for text in (gateway.stack.state / "journal" / "journal.log").read_text().splitlines():
        line = json.loads(text)
        if line["msg"] == "progress":
            moments[line["gateway"]["boot"]].append(line["ts"])
    return [later - earlier for each in moments.values() for earlier, later in itertools.pairwise(each)]

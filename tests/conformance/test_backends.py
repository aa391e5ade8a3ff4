"""Two real Ollamas with the same models: what one of them can't serve, the other does."""

import asyncio
import json
from collections.abc import Iterator
from typing import Final

import asyncpg
import httpx
import pytest

from authz.stack.streams import streams
from tests.conformance.sending import control, run_for, settled
from tests.gateway import Gateway, keymaker, running
from tests.ollama.server import Ollama, running_ollama

CLIENTS: Final = 4
BEFORE: Final = 12
"""Requests that have ended when the first backend dies."""
AFTER: Final = 40
"""Requests that begin after that."""


@pytest.fixture
def pair() -> Iterator[tuple[Ollama, Ollama]]:
    """Two of them."""
    with running_ollama(parallel=CLIENTS) as first, running_ollama(parallel=CLIENTS) as second:
        yield first, second


@pytest.fixture
def shared(pair: tuple[Ollama, Ollama]) -> Iterator[Gateway]:
    """A gateway in front of both."""
    backends = [{"name": name, "url": one.url} for name, one in zip(("first", "second"), pair, strict=True)]
    with running(pair[0].url, OLLAMA_BACKENDS=json.dumps(backends)) as started:
        yield started


@pytest.mark.asyncio
async def test_killed_backend_fails_only_what_it_had_begun(
    shared: Gateway, pair: tuple[Ollama, Ollama], tag: str
) -> None:
    """A backend is killed under load: no request that begins afterwards fails, and each is billed once."""
    first, second = pair
    ended: list[httpx.Response] = []
    begun_after: list[httpx.Response] = []
    body = {"model": "toy", "messages": [{"role": "user", "content": f"tokens=5 tag={tag}"}], "stream": False}
    died = asyncio.Event()

    async def client() -> None:
        headers = {"Authorization": f"Bearer {shared.key}"}
        async with httpx.AsyncClient(base_url=shared.url, headers=headers, timeout=20) as sender:
            while len(begun_after) < AFTER:
                is_after = died.is_set()
                answer = await sender.post("/api/chat", json=body)
                ended.append(answer)
                if is_after:
                    begun_after.append(answer)
                if len(ended) >= BEFORE and not died.is_set():
                    first.kill()
                    died.set()

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())

    assert {200} == {answer.status_code for answer in begun_after}
    assert len([answer for answer in ended if not answer.is_success]) < CLIENTS
    assert first.started(tag)
    assert second.started(tag)
    ledger = await asyncpg.connect(shared.database_url)
    rows = [await settled(ledger, answer.headers["x-request-id"]) for answer in ended if answer.is_success]
    await ledger.close()
    assert {5} == {row["output_tokens"] for row in rows}
    assert {"first", "second"} == {row["backend"] for row in rows}


@pytest.fixture
def narrow(ollama: Ollama) -> Iterator[Gateway]:
    """A gateway that sends one request at a time to its backend."""
    backends = [{"name": "only", "url": ollama.url, "max_in_flight": 1}]
    with running(ollama.url, OLLAMA_BACKENDS=json.dumps(backends)) as started:
        yield started


@pytest.mark.asyncio
async def test_burst_stands_in_no_other_tenants_way(narrow: Gateway, ollama: Ollama, tag: str) -> None:
    """Slots go round between tenants; who leaves the line has reached no backend, and pays nothing."""
    async with keymaker(narrow) as new_key:
        burst, other = await new_key(), await new_key()
    order: list[str] = []

    async def ask(key: str, knobs: str = "") -> None:
        message = {"role": "user", "content": f"tokens=2 tag={tag} {knobs}"}
        body = {"model": "toy", "messages": [message], "stream": False}
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=narrow.url, headers=headers, timeout=20) as sender:
            answer = await sender.post("/api/chat", json=body)
        assert answer.is_success
        order.append(key)

    with ollama.gate(tag) as gate:
        async with asyncio.TaskGroup() as asking:
            asking.create_task(ask(burst, f"hold={tag}"))
            await ollama.last(tag)
            for running_now in (2, 3):
                asking.create_task(ask(burst))
                await run_for(narrow, running_now, age_ms=0)
            before = {stream.id for stream in await streams(control(narrow))}
            impatient = asyncio.create_task(ask(burst))
            await run_for(narrow, 4, age_ms=0)
            (left,) = {stream.id for stream in await streams(control(narrow))} - before
            asking.create_task(ask(other))
            await run_for(narrow, 5, age_ms=0)
            impatient.cancel()
            await run_for(narrow, 4, age_ms=0)
            gate.release(9)

    assert [burst, burst, other, burst] == order
    assert 4 == len(await ollama.truths(tag, ended=4))
    ledger = await asyncpg.connect(narrow.database_url)
    row = await settled(ledger, left)
    await ledger.close()
    assert ("client_gone", 0, 0, None) == (
        row["outcome"],
        row["input_tokens"],
        row["output_tokens"],
        row["backend"],
    )

"""Clients that leave must not close a model for all others."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.gateway import running
from tests.ollama.server import running_ollama

LEAVES = 150


@pytest.fixture
async def narrow() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway whose Ollama answers one request at a time."""
    with running_ollama(parallel=1) as ollama, running(ollama.url, OLLAMA_URL=ollama.url) as gateway:
        headers = {"Authorization": f"Bearer {gateway.key}"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=20) as client:
            yield client


@pytest.mark.timeout(180)
async def test_who_leaves_at_the_end_takes_no_place_along(narrow: httpx.AsyncClient) -> None:
    """Ollama holds a place for good if its client leaves between the last word and the end of an answer."""
    for number in range(LEAVES):
        body = {"model": "toy", "messages": [{"role": "user", "content": f"tokens={1 + number % 4}"}]}
        try:
            async with narrow.stream("POST", "/api/chat", json=body) as answer:
                assert 200 == answer.status_code
                lines = answer.aiter_lines()
                for _ in range(1 + number % 4):
                    await anext(lines)
        except httpx.ReadTimeout:
            pytest.fail(f"nothing is answered after {number} clients that left")
        await asyncio.sleep(0)

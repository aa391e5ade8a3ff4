"""A journal that can't be written closes the doors: nothing runs unbilled, and nothing is forgotten."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from attrs import define, field

from tests.backend.app import backend
from tests.backend.serving import served
from tests.chaos.disk import Disk
from tests.up.stacks import Stack

pytestmark = pytest.mark.timeout(180)

WITHIN_S = 20
REFUSED = 20
SETTLED = """
    SELECT (SELECT count(*) FROM ledger WHERE path = '/api/chat')
        + (SELECT coalesce(sum(refusals), 0) FROM refusals_per_minute WHERE reason = 'journal_unwritable')
"""


@define
class World:
    """A gateway whose journal lies on a small disk, and the backend that knows what really ran."""

    stack: Stack
    disk: Disk
    backend_url: str
    client: httpx.AsyncClient
    answers: list[int] = field(factory=list)

    def caddy(self) -> int:
        """The process that writes the journal."""
        pid = self.stack.pid("caddy")
        assert pid is not None
        return pid

    async def chat(self, words: str = "tokens=3") -> httpx.Response:
        """Ask once."""
        body = {"model": "demo", "messages": [{"role": "user", "content": words}]}
        headers = {"Authorization": f"Bearer {self.stack.key}"}
        url = f"http://127.0.0.1:{self.stack.port}/api/chat"
        answer = await self.client.post(url, headers=headers, json=body)
        self.answers.append(answer.status_code)
        return answer

    async def chat_until(self, status: int) -> httpx.Response:
        """Ask until the answer has this status."""
        async with asyncio.timeout(WITHIN_S):
            while (answer := await self.chat()).status_code != status:
                pass
        return answer

    async def tally(self, **query: str | int) -> list[dict[str, Any]]:
        """Return the backend's requests and what it produced."""
        found = await self.client.get(f"{self.backend_url}/test/tally", params=query)
        entries: list[dict[str, Any]] = found.json()
        return entries


@pytest.fixture
def stack() -> Iterator[tuple[Stack, Disk, str]]:
    """A stack on a small disk, its disk and its backend."""
    with (
        served(backend("demo")) as backend_url,
        tempfile.TemporaryDirectory(prefix="nz") as name,
    ):
        disk = Disk(Path(name) / "disk")
        disk.folder.mkdir()
        starting = Stack(Path(name) / "s", within=disk.within)
        arguments = ("--port", str(starting.port), "--detach", "--json")
        journal = str(disk.folder / "journal.log")
        done = starting.run("up", *arguments, OLLAMA_URL=backend_url, GATEWAY_JOURNAL=journal)
        assert done.returncode == 0, done.stderr
        running = Stack(starting.state, starting.port, json.loads(done.stdout)["secret"])
        yield running, disk, backend_url
        running.run("down")


async def test_a_full_disk_closes_the_doors(stack: tuple[Stack, Disk, str]) -> None:
    """G2, B1, B4: on a full disk every request is 503 and none is forwarded; afterwards the bill is exact."""
    async with httpx.AsyncClient(timeout=30) as client:
        world = World(*stack, client)
        assert 200 == (await world.chat()).status_code
        held = asyncio.create_task(world.chat("tokens=5 hold=gate tag=held"))
        assert await world.tally(tag="held", running=1)

        world.disk.fill(world.caddy())
        refusal = await world.chat_until(503)
        assert "journal" in refusal.json()["error"]
        before = await world.tally()
        assert {503} == {(await world.chat()).status_code for _ in range(REFUSED)}
        assert before == await world.tally()

        await client.post(f"{world.backend_url}/test/release", params={"name": "gate", "words": 100})
        assert 200 == (await held).status_code
        world.disk.free(world.caddy())
        await world.chat_until(200)
        assert 200 == (await world.chat()).status_code
        await _compare(world)


async def _compare(world: World) -> None:
    """Every answer is in the ledger as the backend counted it, every refusal at 0, and no line is lost."""
    entries = await world.tally()
    assert world.answers.count(200) == len(entries)
    stores = json.loads((world.stack.state / "stores.json").read_bytes())
    async with opened(stores["database_url"]) as ledger:
        async with asyncio.timeout(WITHIN_S):
            while await ledger.fetchval(SETTLED) < len(world.answers):
                await asyncio.sleep(0.02)
        rows = await ledger.fetch("SELECT * FROM ledger WHERE path = '/api/chat'")
        assert len(world.answers) == await ledger.fetchval(SETTLED)
        assert 0 == await ledger.fetchval("SELECT sum(lost) FROM journal_sequences")
        assert 0 == await ledger.fetchval("SELECT count(*) FROM open_requests")
    produced = [(entry["input_tokens"], entry["output_tokens"]) for entry in entries]
    billed = [(row["input_tokens"], row["output_tokens"]) for row in rows if row["status"] == 200]
    assert sorted(produced) == sorted(billed)
    assert sum(map(sum, produced)) == sum(row["input_tokens"] + row["output_tokens"] for row in rows)


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database that bills."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()

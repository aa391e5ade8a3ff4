"""`just hostile-tenant`: one tenant tries to move what others pay, what is learned of them, and their bounds.

Honest tenants have shown what their answers cost. Then a hostile one sends everything odd that it can, while
an honest one goes on: with streams that it leaves, whose rows show the figures by which they are priced and
their bounds, and with a request that its budget refuses. B5: nothing of it changes by more than 1 %.

python -m tests.security.hostile_tenant [--minutes 60]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

import asyncpg
import httpx
from attrs import Factory, define

from authz.types import Limits
from tests.chaos.questions import TOOLS
from tests.gateway import Gateway, NewKey, keymaker, running
from tests.ollama.server import running_ollama
from tests.security.oddities import ODDITIES, Oddity

HONEST = 3
"""Tenants: as many as it takes for a model to be known by their median."""

LESSONS = 8
"""Of text and of tool calls, each."""

WORKERS = 3
AT_ONCE = 256
"""Requests that Ollama answers at a time: no one waits for another.

It loses a place for good where a client leaves while a word is on its way (streamResponse in its routes.go
has returned, and `ch <- res` never returns, with the place held): about one in sixty here.
"""
PAUSE_S = 0.03
LOOK_EVERY_S = 1.0
SETTLED_WITHIN_S = 30.0
MEDIANS_WITHIN_S = 90.0
MOST = 0.01
DEFAULT_RATE = 20.0
SMALL = Limits(tokens_total=100)
WORDS = "What does the sky look like at noon, and why is it not green? " * 8

_PRICED = """SELECT input_tokens, ceiling_input, ceiling_output, input_bytes_per_token,
    output_bytes_per_token, output_tokens_per_delta, tool_bytes_per_token, output_tokens_per_s
    FROM ledger WHERE request_id = $1 AND usage_source = 'counted'"""
_LEARNED = "SELECT coalesce(sum(answers), 0)::bigint FROM learned_figures WHERE scope_id = tenant_id"

Seen = dict[str, float | str]


@define
class Attack:
    """A hostile tenant, and what honest ones see meanwhile."""

    client: httpx.AsyncClient
    ledger: asyncpg.Connection
    new_key: NewKey
    is_new_seen: bool
    """Whether a tenant without answers is looked at as well, which medians price."""
    is_own: bool
    """Whether the attacked key sends all this itself: then its figures must be seen to move."""
    sent: int = 0
    looks: int = 0
    worst: float = 0.0
    """The greatest change, as a part of what was there before."""
    changes: list[str] = Factory(list)

    async def run(self, span_s: float) -> None:
        """Teach the honest, then attack for so long, and compare all the while."""
        keys = [await self.new_key() for _ in range(HONEST)]
        small = await self.new_key(tenant=SMALL)
        for key in keys:
            await self._teach(key)
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while await self.ledger.fetchval(_LEARNED) < HONEST * LESSONS * 2:
                await asyncio.sleep(PAUSE_S)
        if self.is_new_seen:
            await self._medians()
        before = await self._look(keys[0], small)
        hostile = keys[0] if self.is_own else await self.new_key()
        until = time.monotonic() + span_s
        async with asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                shift = number * len(ODDITIES) // WORKERS
                odd = ODDITIES[shift:] + ODDITIES[:shift]
                tasks.create_task(self._attack(hostile, odd, until))
            while time.monotonic() < until:
                self._compare(before, await self._look(keys[0], small))
                await asyncio.sleep(LOOK_EVERY_S)
        await self._probe(hostile)  # what it has sent before is settled with this
        self._compare(before, await self._look(keys[0], small))

    async def _teach(self, key: str) -> None:
        for content in ("tokens=24 delay_ms=2 tool=0 ", "tool=1 ") * LESSONS:
            tools = [TOOLS["/api/chat"]] if "tool=1" in content else []
            answer = await self.client.post("/api/chat", content=_chat(content, tools), headers=_bearer(key))
            assert answer.is_success, answer.text

    async def _medians(self) -> None:
        """Wait until the honest have made the model known: medians are a minute old at most."""
        async with asyncio.timeout(MEDIANS_WITHIN_S):
            while (await self._probe(await self.new_key()))["output_tokens_per_s"] == DEFAULT_RATE:
                await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, known: str, small: str) -> Seen:
        """Return the figures of a known key and of a new one, and the sentence of a refusal."""
        self.looks += 1
        asked = {"known": await self._probe(known)}
        if self.is_new_seen:
            asked["new"] = await self._probe(await self.new_key())
        refusal = await self.client.post("/api/chat", content=_chat("", []), headers=_bearer(small))
        seen: Seen = {f"{who} {name}": value for who, row in asked.items() for name, value in row.items()}
        return seen | {"refusal": f"{refusal.status_code} {refusal.json()['error']}"}

    async def _probe(self, key: str) -> dict[str, float]:
        """Leave a stream: nothing is learned from it, and its row has the figures that price it."""
        asked = _chat("tokens=60 delay_ms=30 ", [])
        async with self.client.stream("POST", "/api/chat", content=asked, headers=_bearer(key)) as answer:
            assert answer.is_success, await answer.aread()
            request_id = UUID(answer.headers["x-request-id"])
            await anext(answer.aiter_lines())
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while (row := await self.ledger.fetchrow(_PRICED, request_id)) is None:
                await asyncio.sleep(PAUSE_S)
        return {name: float(value) for name, value in row.items()}

    def _compare(self, before: Seen, now: Seen) -> None:
        for name, value in before.items():
            changed = _change(value, now[name])
            self.worst = max(self.worst, changed)
            if changed > MOST:
                self.changes.append(f"{name}: {value} became {now[name]}")

    async def _attack(self, key: str, oddities: Sequence[Oddity], until: float) -> None:
        for oddity in itertools.cycle(oddities):
            if time.monotonic() > until:
                return
            self.sent += 1
            with suppress(httpx.TransportError):
                await oddity.send(self.client, _bearer(key))
            await asyncio.sleep(PAUSE_S)


def _change(before: float | str, now: float | str) -> float:
    if isinstance(before, str) or isinstance(now, str):
        return float(before != now)
    return abs(now - before) / before if before else float(now != before)


def _chat(knobs: str, tools: list[object]) -> bytes:
    message = {"role": "user", "content": knobs + WORDS}
    return json.dumps({"model": "toy", "messages": [message], "tools": tools}).encode()


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def attacked(gateway: Gateway, *, span_s: float, is_new_seen: bool, is_own: bool) -> Attack:
    """Attack the other tenants of a gateway for so long."""
    ledger = await asyncpg.connect(gateway.database_url)
    async with keymaker(gateway) as new_key, httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
        attack = Attack(client, ledger, new_key, is_new_seen, is_own)
        await attack.run(span_s)
    await ledger.close()
    return attack


def main() -> int:
    """Read the arguments, run, and say whether anything of the others has changed."""
    parser = argparse.ArgumentParser(prog="python -m tests.security.hostile_tenant", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the tenant tries")
    parser.add_argument("--own", action="store_true", help="attack with the honest key: figures must move")
    asked = parser.parse_args()
    with running_ollama(parallel=AT_ONCE) as ollama, running(ollama.url, OLLAMA_URL=ollama.url) as gateway:
        asking = attacked(gateway, span_s=60 * asked.minutes, is_new_seen=not asked.own, is_own=asked.own)
        attack = asyncio.run(asking)
    for change in attack.changes[:10]:
        sys.stdout.write(f"{change}\n")
    sys.stdout.write(
        f"{attack.sent} odd requests, {attack.looks} looks: "
        f"no figure, bound or refusal of the others changed by more than {attack.worst:.4%}\n"
    )
    return 1 if attack.changes else 0


if __name__ == "__main__":
    sys.exit(main())

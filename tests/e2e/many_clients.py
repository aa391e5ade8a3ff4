"""Many clients at once, and what the bill says when they have left."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

import asyncpg
import httpx
from attrs import Factory, define

from tests.gateway import Gateway

SETTLED_WITHIN_S = 20


@define
class Storm:
    """Clients of one key; counts what they were answered."""

    gateway: Gateway
    key: str
    words: str
    cap: int | None = None
    leaves_after: int | None = None
    answers: Counter[int] = Factory(Counter)
    ids: list[UUID] = Factory(list)

    async def blow(self, clients: int, *, is_patient: bool = False) -> None:
        """Send one request per client at once; a patient one tries again after the time it is given."""
        limits = httpx.Limits(max_connections=clients)
        headers = {"Authorization": f"Bearer {self.key}"}
        async with httpx.AsyncClient(
            base_url=self.gateway.url, headers=headers, timeout=60, limits=limits
        ) as client:
            await asyncio.gather(*(self._ask(client, number, is_patient) for number in range(clients)))

    async def _ask(self, client: httpx.AsyncClient, number: int, is_patient: bool) -> None:
        body: dict[str, object] = {
            "model": "demo",
            "stream": bool(number % 2),
            "messages": [{"role": "user", "content": self.words}],
        }
        if self.cap is not None:
            body["max_tokens"] = self.cap
        while True:
            try:
                answer = await self._once(client, body)
            except httpx.TransportError:
                self.answers[0] += 1
                if not is_patient:
                    return
                await asyncio.sleep(0.2)
                continue
            if answer.status_code == httpx.codes.OK or not is_patient or not _may_retry(answer):
                return
            await asyncio.sleep(float(answer.headers["retry-after"]))

    async def _once(self, client: httpx.AsyncClient, body: dict[str, object]) -> httpx.Response:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            self.answers[answer.status_code] += 1
            if answer.status_code == httpx.codes.OK:
                self.ids.append(UUID(answer.headers["x-request-id"]))
            await self._read(answer)
            return answer

    async def _read(self, answer: httpx.Response) -> None:
        """Read the answer, or leave after so many events of a stream."""
        if self.leaves_after is None or answer.headers.get("content-type") != "text/event-stream":
            await answer.aread()
            return
        events = 0
        async for line in answer.aiter_lines():
            events += line.startswith("data:")
            if events >= self.leaves_after:
                return

    async def billed(self, ledger: asyncpg.Connection) -> int:
        """The tokens billed for what was answered, once each of it is settled."""
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while await ledger.fetchval(
                "SELECT count(*) FROM ledger WHERE request_id = ANY($1)", self.ids
            ) < len(self.ids):
                await asyncio.sleep(0.02)
        total: int = await ledger.fetchval(
            "SELECT sum(input_tokens + output_tokens) FROM ledger WHERE request_id = ANY($1)", self.ids
        )
        return total


def _may_retry(answer: httpx.Response) -> bool:
    return "retry-after" in answer.headers

"""Clients that go on asking while things break, and remember what they saw."""

from __future__ import annotations

import asyncio
from itertools import count
from random import Random
from uuid import UUID

import httpx
from attrs import define, field, frozen

from authz.types import Limits
from tests.chaos.plan import dice
from tests.chaos.questions import Asked, Asker, Manner, Question, is_token

PAUSE_S = 0.25
LESSONS = 6
LONGEST_PAUSE_S = 2.0
ANSWERED_WITHIN_S = 60.0


@frozen
class Key:
    """A key of the run, its tenant, and what it may spend."""

    id: UUID
    tenant: UUID
    secret: str = field(repr=False)
    name: str
    limits: Limits
    clients: int
    asker: Asker


@define
class Load:
    """The clients of one run."""

    seed: int
    keys: tuple[Key, ...]
    strange_keys: tuple[str, ...] = field(repr=False)
    client: httpx.AsyncClient
    asked: list[Asked] = field(factory=list)
    is_over: bool = False
    pause_s: float = PAUSE_S
    _numbers: dict[str, count[int]] = field(factory=dict)

    async def blow(self) -> None:
        """Ask from every client, one request at a time each, until it is over."""
        async with asyncio.TaskGroup() as tasks:
            for key in self.keys:
                for number in range(key.clients):
                    tasks.create_task(self._client(key, dice(self.seed, f"{key.name}/{number}")))
            tasks.create_task(self._stranger(dice(self.seed, "stranger")))

    async def learn(self) -> None:
        """Read some answers to their end with every key that pays: they teach what a cut one costs."""
        for key in self.keys:
            chance = dice(self.seed, f"{key.name}/learn")
            for _ in range(LESSONS if key.clients else 0):
                await self._next(key, chance, Manner.STREAM)

    async def touch(self) -> None:
        """Ask once more with every key until all are decided: a forgotten tenant is known again."""
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            for key in self.keys:
                chance = dice(self.seed, f"{key.name}/touch")
                while (await self._next(key, chance)).status in {0, 503}:
                    await asyncio.sleep(PAUSE_S)

    def refused(self, status: int) -> int:
        """Return the number of answers with this status."""
        return sum(asked.status == status for asked in self.asked)

    async def _client(self, key: Key, chance: Random) -> None:
        while not self.is_over:
            asked = await self._next(key, chance)
            # A client's thinking time, or as long as it was asked to wait.
            await asyncio.sleep(
                max(chance.uniform(0, 2 * self.pause_s), min(asked.retry_ms / 1000, LONGEST_PAUSE_S))
            )

    async def _stranger(self, chance: Random) -> None:
        while not self.is_over:
            question = Question("stranger", "/api/chat", Manner.BAD_KEY, "tokens=1 tag=stranger", "none")
            await self._ask(Asked(None, question), chance.choice(self.strange_keys))
            await asyncio.sleep(chance.uniform(0, 8 * PAUSE_S))

    async def _next(self, key: Key, chance: Random, manner: Manner | None = None) -> Asked:
        number = next(self._numbers.setdefault(key.name, count()))
        tag, asker = f"{key.name}-{number}", key.asker
        question = (
            asker.choose(chance, tag, number)
            if manner is None
            else asker.question(chance, tag, number, manner)
        )
        asked = Asked(key.id, question)
        await self._ask(asked, key.secret)
        return asked

    async def _ask(self, asked: Asked, secret: str) -> None:
        self.asked.append(asked)
        headers = {"Authorization": f"Bearer {secret}"}
        try:
            async with (
                asyncio.timeout(asked.question.patience_s),
                self.client.stream(
                    "POST", asked.question.path, headers=headers, content=asked.question.body
                ) as answer,
            ):
                asked.status = answer.status_code
                asked.request_id = UUID(answer.headers["x-request-id"])
                asked.retry_ms = _retry_ms(answer.headers)
                await _read(asked, answer)
        except (httpx.TransportError, TimeoutError) as error:
            asked.fault = repr(error)


async def _read(asked: Asked, answer: httpx.Response) -> None:
    """Read to the end, or hang up after so many tokens."""
    question = asked.question
    if not (question.is_stream and answer.is_success):
        await answer.aread()
        asked.fault = "" if answer.is_success else answer.text
        asked.is_whole = True
        return
    async for line in answer.aiter_lines():
        if is_token(question.path, line):
            asked.delivered_tokens += 1
            if asked.delivered_tokens == question.leaves_after:
                return
    asked.is_whole = True


def _retry_ms(headers: httpx.Headers) -> int:
    """Return a client's wait: as the answer asks, longer if it asks for no retry."""
    if headers.get("x-should-retry") == "false":
        return int(1000 * LONGEST_PAUSE_S)
    return int(headers.get("retry-after-ms") or 1000 * int(headers.get("retry-after", 0)))

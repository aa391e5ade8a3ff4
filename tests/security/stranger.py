"""`just stranger`: someone without an account does what can be done to a gateway, while a client streams.

The stranger has a process and all addresses of a /32 of its own (a proxy in front says which): it begins
requests that it never finishes, invents keys, asks from ever new sites, and sends bodies full of names, as
fast as the machine allows. Its requests are refused, reach no backend and cost the paying client a slower
machine, nothing more.

python -m tests.security.stranger [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from secrets import token_hex
from statistics import quantiles
from typing import Final
from urllib.parse import urlsplit

import httpx
from attrs import Factory, define, frozen

from authz.identity.secrets import Pepper, mint
from tests.gateway import Gateway, running
from tests.ollama.server import Ollama, running_ollama

PROXY: Final = "127.0.0.1"
WORKERS: Final = 16
"""Requests of the stranger at a time, besides the slow ones."""
SLOW: Final = 200
"""Heads and bodies that it never finishes, at a time."""
DRIP_S: Final = 1.0
NAMES: Final = b'{"model":"toy",%s}' % b",".join(b'"%x":0' % number for number in range(40_000))
SMALL: Final = b'{"model":"toy","messages":[{"role":"user","content":"hi"}]}'
LESSONS: Final = 20
TOKENS: Final = 10
REFUSALS: Final = frozenset({401, 403, 408, 413, 429, 503})
"""What a stranger may be answered; 0 stands for a connection that was closed."""


@define
class Stranger:
    """What it sent and was answered, by kind."""

    host: str
    port: int
    begins: Callable[[], None]
    """Called once it is ready."""
    is_over: Callable[[], bool]
    answers: Counter[tuple[str, int]] = Factory(Counter)
    _pepper: Pepper = Factory(lambda: Pepper(token_hex(16).encode()))

    async def attack(self) -> None:
        """Do everything at once until it is over."""
        keys = [mint(self._pepper).secret for _ in range(64)]  # their hashes take long, so they are few
        self.begins()
        async with asyncio.TaskGroup() as tasks:
            for number in range(WORKERS):
                work = (self._invented, self._names)[number % 4 == 0]
                tasks.create_task(self._again(work, keys, number))
            for number in range(SLOW):
                work = (self._slow, self._stalled)[number % 2]
                tasks.create_task(self._again(work, keys, WORKERS + number))

    async def _again(
        self,
        work: Callable[[str, str], Awaitable[int]],
        keys: list[str],
        number: int,
    ) -> None:
        for turn in itertools.count():
            if self.is_over():
                return
            site = f"2001:db8:{(number * 7919 + turn) % 65_536:x}:{turn % 65_536:x}::1"
            status = 0
            with suppress(OSError, asyncio.IncompleteReadError):
                status = await work(keys[(number + turn) % len(keys)], site)
            self.answers[work.__name__.strip("_"), status] += 1

    async def _invented(self, key: str, site: str) -> int:
        """Ask with a key of the right form."""
        return await self._ask(_head(key, site, len(SMALL)) + SMALL)

    async def _names(self, key: str, site: str) -> int:
        """Send 400 kB of names, each of which would be compared with all others."""
        return await self._ask(_head(key, site, len(NAMES)) + NAMES)

    async def _slow(self, key: str, site: str) -> int:
        """Begin a body of a megabyte, and send a byte of it a second."""
        return await self._drip(_head(key, site, 1 << 20), b" ")

    async def _stalled(self, key: str, site: str) -> int:
        """Begin a request, and send a header a second."""
        return await self._drip(_head(key, site, len(SMALL)).removesuffix(b"\r\n"), b"X: 1\r\n")

    async def _drip(self, beginning: bytes, drop: bytes) -> int:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(beginning)
            while not self.is_over():
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRIP_S):
                        return _status(await reader.readline())
                writer.write(drop)
                await writer.drain()
            return 0
        finally:
            writer.close()

    async def _ask(self, data: bytes) -> int:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(data)
            with suppress(OSError):  # it may be refused before it was all taken
                await writer.drain()
            return _status(await reader.readline())
        finally:
            writer.close()


def _head(key: str, site: str, length: int) -> bytes:
    lines = (
        "POST /api/chat HTTP/1.1",
        "Host: gateway",
        f"Authorization: Bearer {key}",
        f"X-Forwarded-For: {site}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def _status(line: bytes) -> int:
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0


def _attack(host: str, port: int, orders: Connection) -> None:
    """Say when it begins, attack until an order comes, report what was answered: the stranger's process."""
    stranger = Stranger(host, port, lambda: orders.send("begun"), orders.poll)
    asyncio.run(stranger.attack())
    orders.send(stranger.answers)


@frozen
class Latencies:
    """Of the paying client's streams: milliseconds to the first word, and for the whole."""

    first_ms: list[float]
    whole_ms: list[float]

    @classmethod
    async def of(cls, client: httpx.AsyncClient, *, span_s: float) -> Latencies:
        """Stream one answer after the other for so long, but some at least. Every one must be whole."""
        found = cls([], [])
        until = time.monotonic() + span_s
        while time.monotonic() < until or len(found.whole_ms) < LESSONS:
            began = time.monotonic()
            message = {"role": "user", "content": f"tokens={TOKENS} delay_ms=5"}
            body = {"model": "toy", "messages": [message]}
            async with client.stream("POST", "/api/chat", json=body) as answer:
                assert answer.status_code == httpx.codes.OK, await answer.aread()
                lines = answer.aiter_lines()
                await anext(lines)
                found.first_ms.append((time.monotonic() - began) * 1000)
                last = json.loads([line async for line in lines][-1])
            assert (True, TOKENS) == (last["done"], last["eval_count"])
            found.whole_ms.append((time.monotonic() - began) * 1000)
        return found


def p99(values: list[float]) -> float:
    """Return what one value of a hundred exceeds."""
    return quantiles(values, n=100, method="inclusive")[98]


@frozen
class Outcome:
    """What became of the paying client and of the stranger."""

    before: Latencies
    during: Latencies
    answers: Counter[tuple[str, int]]
    served: int
    """Requests that the backend has had in all."""

    def complaints(self) -> list[str]:
        """Return what the stranger got that it should not have got."""
        paid = len(self.before.whole_ms) + len(self.during.whole_ms)
        found = [f"the backend had {self.served} requests, of which {paid} were paid for"]
        wrong = [each for each in self.answers if each[1] not in REFUSALS | {0}]
        return found * (self.served != paid) + [f"{kind} was answered {status}" for kind, status in wrong]

    def lines(self) -> list[str]:
        """Describe it for a person."""
        answers = ", ".join(f"{kind} {status}: {n}" for (kind, status), n in sorted(self.answers.items()))
        ways = (("first word", "first_ms"), ("whole answer", "whole_ms"))
        return [
            f"the stranger: {sum(self.answers.values())} requests ({answers})",
            f"the client: {len(self.before.whole_ms)} answers before, {len(self.during.whole_ms)} meanwhile",
        ] + [
            f"p99 of the {what}: {p99(getattr(self.before, name)):.0f} ms before, "
            f"{p99(getattr(self.during, name)):.0f} ms meanwhile"
            for what, name in ways
        ]


async def _watched(
    gateway: Gateway, *, span_s: float
) -> tuple[Latencies, Latencies, Counter[tuple[str, int]]]:
    headers = {"Authorization": f"Bearer {gateway.key}", "X-Forwarded-For": "198.51.100.7"}
    url = urlsplit(gateway.url)
    mine, its = multiprocessing.Pipe()
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as client:
        before = await Latencies.of(client, span_s=span_s / 4)
        spawned = multiprocessing.get_context("spawn").Process(
            target=_attack, args=(url.hostname, url.port, its)
        )
        spawned.start()
        its.close()  # the other end is the child's alone: if that dies, so does the wait for it
        await asyncio.to_thread(mine.recv)
        during = await Latencies.of(client, span_s=span_s)
        mine.send("stop")
        answers: Counter[tuple[str, int]] = await asyncio.to_thread(mine.recv)
        spawned.join()
    return before, during, answers


def attacked(gateway: Gateway, ollama: Ollama, *, span_s: float) -> Outcome:
    """Attack a gateway that believes the proxy for so long, and watch its client."""
    before, during, answers = asyncio.run(_watched(gateway, span_s=span_s))
    return Outcome(before, during, answers, served=len(ollama.ended()))


def main() -> int:
    """Read the arguments, run, print what came of it; 1 if the stranger got anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.security.stranger", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the stranger tries")
    asked = parser.parse_args()
    with (
        running_ollama(parallel=4) as ollama,
        running(ollama.url, OLLAMA_URL=ollama.url, GATEWAY_TRUSTED_PROXIES=PROXY) as gateway,
    ):
        outcome = attacked(gateway, ollama, span_s=asked.seconds)
    sys.stdout.write("\n".join([*outcome.lines(), *outcome.complaints()]) + "\n")
    return 1 if outcome.complaints() else 0


if __name__ == "__main__":
    sys.exit(main())

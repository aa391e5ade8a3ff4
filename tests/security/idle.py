"""`just idle`: 10,000 connections that do nothing, or next to nothing, beside a client that streams.

Four of five have had an answer and stay open; the others send a header a second, and come again when they are
cut off. Blocks with and without them take turns, so that a slow minute of the machine harms both alike.

python -m tests.security.idle [--connections 10000] [--blocks 12] [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from statistics import median
from typing import Final
from urllib.parse import urlsplit

import httpx
from attrs import Factory, define

from tests.gateway import Gateway, running
from tests.ollama.server import running_ollama
from tests.security.stranger import Latencies, p99

SLOW_OF: Final = 5
"""One of so many is slow, the others are idle."""
AT_ONCE: Final = 200
"""Connections that are being opened at a time."""
DRIP_S: Final = 1.0
HEAD: Final = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n"


@define
class Crowd:
    """Connections to one address, kept open."""

    host: str
    port: int
    _open: set[int] = Factory(set)
    _opening: asyncio.Semaphore = Factory(lambda: asyncio.Semaphore(AT_ONCE))

    async def stand(self, count: int, orders: Connection) -> None:
        """Report when all are open, and close them at an order."""
        tasks = [asyncio.create_task(self._again(number)) for number in range(count)]
        while len(self._open) < count:
            await asyncio.sleep(0.1)
        orders.send("all are open")
        while not orders.poll():
            await asyncio.sleep(0.1)
        orders.recv()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _again(self, number: int) -> None:
        while True:
            with suppress(OSError):
                await self._connect(number, is_slow=number % SLOW_OF == 0)

    async def _connect(self, number: int, *, is_slow: bool) -> None:
        """Open a connection, and return once it is closed."""
        async with self._opening:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            writer.write(HEAD if is_slow else HEAD + b"\r\n")
            if not is_slow:
                await reader.readuntil(b"\r\n\r\n")
        self._open.add(number)
        try:
            while is_slow:
                writer.write(b"X: 1\r\n")
                await writer.drain()
                await asyncio.sleep(DRIP_S)
            await reader.read()
        finally:
            writer.close()


def _stand(host: str, port: int, count: int, orders: Connection) -> None:
    asyncio.run(Crowd(host, port).stand(count, orders))


async def beside_many(gateway: Gateway, count: int, *, span_s: float) -> Latencies:
    """Measure a client for so long while so many connections are open, in a process of their own."""
    url = urlsplit(gateway.url)
    mine, its = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    crowd = context.Process(target=_stand, args=(url.hostname, url.port, count, its))
    crowd.start()
    its.close()
    await asyncio.to_thread(mine.recv)
    measured = await alone(gateway, span_s=span_s)
    mine.send("close")
    await asyncio.to_thread(crowd.join)
    return measured


async def alone(gateway: Gateway, *, span_s: float) -> Latencies:
    """Measure a client for so long; each of its answers must be whole."""
    headers = {"Authorization": f"Bearer {gateway.key}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as client:
        return await Latencies.of(client, span_s=span_s)


async def compared(gateway: Gateway, *, connections: int, blocks: int, span_s: float) -> list[float]:
    """Return the p99 of a whole answer beside the connections, as a multiple of that alone, by pairs."""
    await alone(gateway, span_s=span_s / 2)  # the first requests warm the gateway up
    found = []
    for number in range(blocks // 2):
        # Which is first takes turns, too: what grows with time would count for one of both.
        if number % 2:
            crowded = await beside_many(gateway, connections, span_s=span_s)
            quiet = await alone(gateway, span_s=span_s)
        else:
            quiet = await alone(gateway, span_s=span_s)
            crowded = await beside_many(gateway, connections, span_s=span_s)
        found.append(p99(crowded.whole_ms) / p99(quiet.whole_ms))
    return found


def main() -> int:
    """Read the arguments, measure, and print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.security.idle", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=12, help="half of them with the connections")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each block")
    asked = parser.parse_args()
    with running_ollama(parallel=4) as ollama, running(ollama.url, OLLAMA_URL=ollama.url) as gateway:
        comparing = compared(
            gateway, connections=asked.connections, blocks=asked.blocks, span_s=asked.seconds
        )
        found = asyncio.run(comparing)
    every = ", ".join(f"{ratio:.2f}" for ratio in found)
    sys.stdout.write(
        f"p99 of a whole answer beside {asked.connections:,} connections: {median(found):.2f} times that "
        f"without them (median of {len(found)} pairs of blocks: {every})\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`just bench-prompts`: what keeping prompts costs a whole gateway; exits 1 above a tenth of its throughput.

python -m tests.bench.bench_prompts [--blocks 8] [--requests 200] [--tokens 40]

What a busy machine serves is bounded by the CPU time of a request: that of Caddy, authz, metering, Postgres
and Redis together, client and backend aside. It hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

import httpx

from tests.backend.app import backend
from tests.backend.serving import served
from tests.gateway import Gateway, running

AT_ONCE: Final = 8
MOST: Final = 1.10
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(gateway: Gateway) -> float:
    """The CPU time of all of the gateway's processes and their ended children, in seconds."""
    ticks = 0
    for pid in gateway.stack.processes():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:13]))
    return ticks / TICKS_PER_S


async def block(url: str, key: str, *, requests: int, tokens: int) -> None:
    """Send so many streamed chats, several at once."""
    body = {"model": "demo", "messages": [{"role": "user", "content": f"tokens={tokens}"}]}
    limits = httpx.Limits(max_connections=AT_ONCE)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60) as client:

        async def one() -> None:
            answer = await client.post("/api/chat", json=body)
            answer.raise_for_status()

        for _ in range(requests // AT_ONCE):
            await asyncio.gather(*[one() for _ in range(AT_ONCE)])


def measured(gateway: Gateway, key: str, *, requests: int, tokens: int) -> float:
    """Return the CPU time of one request in ms, with all that follows from it."""
    before = cpu_s(gateway)
    asyncio.run(block(gateway.url, key, requests=requests, tokens=tokens))
    asyncio.run(asyncio.sleep(3))  # until metering has stored what was sealed
    return 1000 * (cpu_s(gateway) - before) / requests


def main() -> int:
    """Measure in turn without and with prompts kept; print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=40)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as away,
        served(backend("demo")) as backend_url,
        running(backend_url, OLLAMA_URL=backend_url) as gateway,
    ):
        gateway.run("vault", "init", "--private-key", str(Path(away) / "vault.key"))
        keys = {
            "without": gateway.create_key("plain"),
            "with": gateway.create_key("kept", "--log-prompts", "1d"),
        }
        found: dict[str, list[float]] = {name: [] for name in keys}
        for number in range(given.blocks + 1):
            for name, key in keys.items():
                cost_ms = measured(gateway, key, requests=given.requests, tokens=given.tokens)
                if number:  # the first block warms up
                    found[name].append(cost_ms)
        listed = json.loads(gateway.run("prompts", "list", "--limit", "10000", "--json").stdout)
    kept = sum(row["state"] == "whole" for row in listed)
    medians = {name: statistics.median(costs) for name, costs in found.items()}
    ratio = medians["with"] / medians["without"]
    sys.stdout.write(
        f"{medians['without']:.2f} ms of CPU a request without, {medians['with']:.2f} ms with prompts kept "
        f"({100 * (ratio - 1):+.1f} %); {kept} of {(given.blocks + 1) * given.requests} are whole\n"
    )
    return 0 if ratio <= MOST and kept else 1


if __name__ == "__main__":
    sys.exit(main())

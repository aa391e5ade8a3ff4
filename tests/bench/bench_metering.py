"""`just bench-metering`: figures of metering on real stores; exits 1 if a sum is wrong or a target is missed.

python tests/bench/bench_metering.py [--lines 500000] [--seconds 15]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
from attrs import frozen
from redis.asyncio import Redis

from authz.limiter import keyspace
from authz.schema import migrate
from authz.stack import embedded

NODE = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
TENANTS = [UUID(int=4 << 76 | 2 << 62 | number) for number in range(1, 21)]
INPUT, OUTPUT = 78, 64

LINES_PER_S, P50_MS, P99_MS, RSS_MIB, IDLE_CPU = 15_000, 40, 150, 120, 0.01
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class WrongSum(Exception):
    """The bill is not what was written to the journal."""


def uuid7(at_ms: int, number: int) -> UUID:
    """A UUIDv7 of a moment."""
    return UUID(int=at_ms << 80 | 7 << 76 | 2 << 62 | number)


@frozen
class Writer:
    """Writes what Caddy would: an open line and a record a request."""

    boot: UUID

    def boot_line(self) -> bytes:
        """The first line."""
        return _line("boot", {"v": 1, "node": str(NODE), "boot": str(self.boot), "seq": 0})

    def request(self, number: int, at_ms: int) -> tuple[UUID, bytes]:
        """Both lines of one request."""
        request_id, tenant = uuid7(at_ms, number), TENANTS[number % len(TENANTS)]
        head = {"v": 1, "id": str(request_id), "node": str(NODE), "boot": str(self.boot)}
        grant = {
            "tenant": str(tenant),
            "key": str(UUID(int=tenant.int + (1 << 32))),
            "reserved": {"input": 94, "output": 256},
            "windows": {"day": "2026-11-25", "month": "2026-11"},
        }
        opened = head | {"seq": 2 * number + 1} | grant | {"deadline": at_ms // 1000 + 1800}
        ended = (
            head
            | {"seq": 2 * number + 2, "ip": "203.0.113.9", "lookup": "nz_3bVSxmba"}
            | grant
            | {
                "method": "POST",
                "path": "/v1/chat/completions",
                "model": "llama3.2",
                "backend": "local",
                "stream": True,
                "outcome": "completed",
                "reason": None,
                "status": 200,
                "upstream_status": 200,
                "max_output": 256,
                "terminal": True,
                "input_tokens": INPUT,
                "output_tokens": OUTPUT,
                "cached_tokens": 12,
                "deltas": 64,
                "output_bytes": 301,
                "prompt_bytes": 311,
                "images": 0,
                "ttft_ms": 41,
                "duration_ms": 1210,
                "load_ms": None,
                "prompt_eval_ms": None,
                "eval_ms": None,
            }
        )
        return request_id, _line("open", opened) + _line("handled request", ended)


def _line(msg: str, gateway: dict[str, object]) -> bytes:
    head: dict[str, object] = {"level": "info", "ts": time.time(), "logger": "gateway.journal", "msg": msg}
    if msg == "handled request":
        head |= {
            "request": {
                "remote_ip": "203.0.113.9",
                "proto": "HTTP/1.1",
                "method": "POST",
                "uri": "/v1/chat/completions",
            },
            "bytes_read": 412,
            "duration": 1.21,
            "size": 2048,
            "status": 200,
        }
    return json.dumps(head | {"gateway": gateway}, separators=(",", ":")).encode() + b"\n"


@contextmanager
def metering(state: Path, database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A metering process of its own."""
    environ = os.environ | {
        "GATEWAY_STATE": str(state),
        "DATABASE_URL": database_url,
        "REDIS_URL": f"unix://{state}/run/redis.sock?db=0",
    }
    log = state / "metering.log"
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", "metering"], env=environ, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def cpu_s(pid: int) -> float:
    """Processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_rss_mib(pid: int) -> float:
    """The most memory a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


async def check(database: asyncpg.Connection, redis: Redis, requests: int) -> None:
    """Ledger, windows and Redis must all say what was written."""
    expected = requests * (INPUT + OUTPUT)
    billed = await database.fetchval("SELECT count(*) FROM ledger")
    tokens = await database.fetchval("SELECT sum(input_tokens + output_tokens) FROM ledger")
    windows = await database.fetchval(
        "SELECT sum(used) FROM budget_windows WHERE period = 'total' AND scope_id = tenant_id"
    )
    cached = [await redis.hget(keyspace.tenant(tenant), "u:t:t") for tenant in TENANTS]
    sums = {"ledger": tokens, "windows": windows, "redis": sum(int(used or 0) for used in cached)}
    open_rows = await database.fetchval("SELECT count(*) FROM open_requests")
    if set(sums.values()) != {expected} or billed != requests or open_rows:
        raise WrongSum(f"expected {expected} tokens of {requests} requests, found {sums}, open {open_rows}")


async def settled(database: asyncpg.Connection, redis: Redis, requests: int) -> None:
    """Wait until all is in the ledger and published."""
    while True:
        if await database.fetchval("SELECT count(*) FROM ledger") >= requests and not await database.fetchval(
            "SELECT count(*) FROM unpublished"
        ):
            return
        await asyncio.sleep(0.1)


async def catch_up(
    state: Path, url: str, database: asyncpg.Connection, redis: Redis, lines: int
) -> dict[str, float]:
    """A journal that is there already."""
    writer, requests = Writer(uuid7(int(time.time() * 1000), 1 << 50)), lines // 2
    at_ms = int(time.time() * 1000)
    with (state / "journal" / "journal.log").open("wb") as file:
        file.write(writer.boot_line())
        for number in range(requests):
            file.write(writer.request(number, at_ms)[1])
    with metering(state, url) as process:
        began = time.monotonic()
        await settled(database, redis, requests)
        took_s, used_s = time.monotonic() - began, cpu_s(process.pid)
        rss = peak_rss_mib(process.pid)
    await check(database, redis, requests)
    return {
        "lines_per_s": lines / took_s,
        "lines_per_cpu_s": lines / used_s,
        "rss_mib": rss,
        "took_s": took_s,
    }


async def latency(
    state: Path, url: str, database: asyncpg.Connection, redis: Redis, before: int, seconds: int
) -> dict[str, float]:
    """200 requests a second: from the record's write to Redis having closed the id."""
    writer = Writer(uuid7(int(time.time() * 1000), 1 << 51))
    written: dict[bytes, float] = {}
    waits: list[float] = []
    pending: set[tuple[UUID, bytes]] = set()
    with metering(state, url) as process, (state / "journal" / "journal.log").open("ab", buffering=0) as file:
        file.write(writer.boot_line())
        await asyncio.sleep(2)
        idle_from, idle_at = cpu_s(process.pid), time.monotonic()
        await asyncio.sleep(5)
        idle = (cpu_s(process.pid) - idle_from) / (time.monotonic() - idle_at)
        began = time.monotonic()
        number = 0
        while number < seconds * 200 or pending:
            while number < seconds * 200 and time.monotonic() - began >= number / 200:
                request_id, data = writer.request(number, int(time.time() * 1000))
                file.write(data)
                key = str(request_id).encode()
                written[key] = time.monotonic()
                pending.add((TENANTS[number % len(TENANTS)], key))
                number += 1
            async with redis.pipeline(transaction=False) as pipeline:
                asked = list(pending)
                for tenant, key in asked:
                    await pipeline.zscore(keyspace.closed(tenant), key)
                for (tenant, key), score in zip(asked, await pipeline.execute(), strict=True):
                    if score is not None:
                        waits.append((time.monotonic() - written[key]) * 1000)
                        pending.discard((tenant, key))
            await asyncio.sleep(0.001)
        rss = peak_rss_mib(process.pid)
    await check(database, redis, before + number)
    cuts = statistics.quantiles(waits, n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98], "idle_cpu": idle, "rss_mib": rss}


def say(part: str, figures: dict[str, float]) -> None:
    """One line of figures."""
    sys.stdout.write(f"{part}: " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()) + "\n")
    sys.stdout.flush()


async def measure(lines: int, seconds: int) -> int:
    """Run both parts; 1 if a target is missed."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder, ExitStack() as servers:
        state = Path(folder)
        servers.enter_context(embedded.postgres_server(state))
        servers.enter_context(embedded.redis_server(state))
        url = embedded.postgres_url(state)
        migrate(url)
        journal = state / "journal"
        journal.mkdir(exist_ok=True)
        (journal / "node").write_text(str(NODE))
        database = await asyncpg.connect(url)
        redis = Redis.from_url(f"unix://{state}/run/redis.sock?db=0")
        first = await catch_up(state, url, database, redis, lines)
        say("catch-up", first)
        second = await latency(state, url, database, redis, lines // 2, seconds)
        say("latency", second)
        await redis.aclose()
        await database.close()
    missed = [
        name
        for name, is_missed in (
            ("lines/s", first["lines_per_s"] < LINES_PER_S),
            ("p50", second["p50_ms"] >= P50_MS),
            ("p99", second["p99_ms"] >= P99_MS),
            ("memory", max(first["rss_mib"], second["rss_mib"]) >= RSS_MIB),
            ("idle processor time", second["idle_cpu"] >= IDLE_CPU),
        )
        if is_missed
    ]
    sys.stdout.write(f"missed: {', '.join(missed) or 'nothing'}\n")
    return 1 if missed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=500_000)
    parser.add_argument("--seconds", type=int, default=15)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(measure(arguments.lines, arguments.seconds)))

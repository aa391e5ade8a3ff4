"""`just bench-verify`: what one decision of authz costs, beside the same handler on redis-py's own pool.

Real stores, the real application called as uvicorn calls it; every request is admitted under request,
token and slot limits and three budgets, of its tenant and of its key. Exits 1 if the aim is missed.

python tests/bench/bench_verify.py [--requests 2000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import uvloop
from attrs import define, field, frozen
from litestar import Litestar
from litestar.handlers import asgi
from redis.asyncio import Redis

from authz import settings as settings_
from authz.accounts.keys import CreatedKey, create_key
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.app import Gate
from authz.limiter.address import Server
from authz.limiter.connection import Script
from authz.limiter.limiter import Limiter
from authz.schema import migrate
from authz.settings import Settings
from authz.stack import embedded
from authz.store import ADMIN_ROLE, Store
from authz.types import Closed, Limits
from tests.authz.asking import BOOT, NODE, uuid7
from tests.backend.app import backend
from tests.backend.serving import served

CPU_US, VERIFIES_PER_S = 120, 8_000
AT_ONCE = (1, 64)
MANY = Limits(
    requests_per_minute=10**8,
    tokens_per_minute=10**9,
    concurrency=10**6,
    tokens_per_day=10**12,
    tokens_per_month=10**12,
    tokens_total=10**12,
)


@define
class Pool:
    """The handler's work with redis-py as it comes; stands in for pipeline and link."""

    client: Any
    run_id: str

    server: Server = field(factory=Server)

    def of(self, _: UUID) -> Pool:
        """Itself."""
        return self

    def links(self) -> list[Pool]:
        """Itself."""
        return [self]

    def send(self, *command: Any) -> Coroutine[Any, Any, Any]:
        """One command over a connection of the pool."""
        sent: Coroutine[Any, Any, Any] = self.client.execute_command(*command)
        return sent

    async def evaluate(self, script: Script, keys: Sequence[str], clock_us: int, *arguments: Any) -> Any:
        """Run a script over a connection of the pool."""
        return await self.send("EVALSHA", script.sha, len(keys), *keys, clock_us, *arguments)

    async def close(self) -> None:
        """Leave the pool to its owner."""


@frozen
class Cost:
    """Of one request: CPU of this process and of Redis, and the time it took."""

    cpu_us: float
    redis_cpu_us: float
    per_s: float


@define
class Handler:
    """The application, called without a socket."""

    app: Litestar
    limiter: Limiter
    redis: Redis
    key: CreatedKey
    tenant: UUID
    key_id: UUID

    async def measure(self, count: int, at_once: int) -> Cost:
        """Ask so many times; asks are made, and slots are freed, outside of what is measured."""
        ids = [uuid7() for _ in range(count)]
        scopes = iter([self._scope(id_) for id_ in ids])
        redis_s, cpu_s, began_s = await self._redis_cpu_s(), time.process_time(), time.perf_counter()
        await asyncio.gather(*(self._drain(scopes) for _ in range(at_once)))
        cpu_s, took_s = time.process_time() - cpu_s, time.perf_counter() - began_s
        redis_s = await self._redis_cpu_s() - redis_s
        await self.limiter.settle(self.tenant, [Closed(id_, self.key_id, 0) for id_ in ids], ())
        return Cost(cpu_s / count * 1e6, redis_s / count * 1e6, count / took_s)

    async def _drain(self, scopes: Iterator[dict[str, Any]]) -> None:
        for scope in scopes:
            await self.app(scope, _nothing_comes, _expect_a_grant)  # type: ignore[arg-type]

    async def _redis_cpu_s(self) -> float:
        info = await self.redis.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def _scope(self, id_: UUID) -> dict[str, Any]:
        ask = {
            "v": 1,
            "id": str(id_),
            "node": str(NODE),
            "boot": str(BOOT),
            "ip": "203.0.113.9",
            "method": "POST",
            "path": "/v1/chat/completions",
            "lookup": self.key.prefix,
            "length": 300,
            "model": "demo",
            "stream": True,
            "max_output": 64,
            "prompt_bytes": 200,
            "bounds": {"bytes": 305},
            "messages": 2,
        }
        headers = [
            (b"host", b"authz"),
            (b"x-nz-ask", json.dumps(ask).encode()),
            (b"authorization", f"Bearer {self.key.key}".encode()),
        ]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": "/verify",
            "raw_path": b"/verify",
            "root_path": "",
            "query_string": b"",
            "scheme": "http",
            "headers": headers,
            "client": None,
            "server": None,
            "state": {},
        }


async def _nothing_comes() -> Any:
    await asyncio.Event().wait()


async def _expect_a_grant(message: Any) -> None:
    if message["type"] == "http.response.start" and message["status"] != 204:
        raise RuntimeError(f"not admitted: {message}")


@contextmanager
def stores() -> Iterator[Settings]:
    """Postgres, Redis and a backend, and the settings to find them."""
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nz")))
        database = stack.enter_context(embedded.postgres_server(state, database="gateway"))
        redis = stack.enter_context(embedded.redis_server(state))
        migrate(database.url)
        url = stack.enter_context(served(backend("demo")))
        (state / "pepper").write_text("ab" * 32)
        (state / "pepper").chmod(0o400)
        yield settings_.load(
            {
                "DATABASE_URL": database.url,
                "REDIS_URL": redis.url,
                "GATEWAY_STATE": str(state),
                "GATEWAY_POLL_S": "3600",
                "OLLAMA_URL": url,
            }
        )


@asynccontextmanager
async def handler(settings: Settings, *, pooled: bool) -> AsyncIterator[Handler]:
    """The application with a new tenant and a key, on the pipeline or on a pool."""
    store = Store(settings.database_url, role=ADMIN_ROLE)
    limiter = await Limiter.connect(settings.redis_url)
    session, name = Session(settings, store, limiter, "bench"), f"bench-{uuid4().hex[:8]}"
    tenant = await create_tenant(session, name, limits=MANY)
    key = await create_key(session, tenant=name, name="first", limits=MANY)
    owner = await asyncpg.connect(settings.database_url)
    query = "INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $2, now()) ON CONFLICT DO NOTHING"
    await owner.execute(query, NODE, BOOT)
    key_id = await owner.fetchval("SELECT key_id FROM secrets WHERE lookup = $1", key.prefix)
    await owner.close()
    gate, redis = Gate(settings), Redis.from_url(settings.redis_url)
    mount = asgi("/verify", copy_scope=False)(gate.verify)
    app = Litestar([mount], lifespan=[gate.lifespan], openapi_config=None, logging_config=None)
    async with app.lifespan(), redis:
        if pooled:
            own = gate.verifier.limiter
            run_id = own.run(tenant)
            await own.close()
            own._redis = Pool(redis, run_id)  # type: ignore[assignment]
        await limiter.vouch(NODE, lag_ms=0)
        yield Handler(app, limiter, redis, key, tenant, key_id)
    await limiter.close()
    await store.close()


async def compare(settings: Settings, count: int, rounds: int) -> dict[tuple[str, int], Cost]:
    """Measure both in turn, so that a noisy machine is noisy for both; the median counts."""
    found: dict[tuple[str, int], list[Cost]] = {}
    async with handler(settings, pooled=False) as own, handler(settings, pooled=True) as pooled:
        for _ in range(rounds + 1):  # the first is to warm up
            for at_once in AT_ONCE:
                for name, measured in (("pipeline", own), ("pool", pooled)):
                    await measured.limiter.vouch(NODE, lag_ms=0)
                    found.setdefault((name, at_once), []).append(await measured.measure(count, at_once))
    return {
        which: Cost(
            median(cost.cpu_us for cost in costs[1:]),
            median(cost.redis_cpu_us for cost in costs[1:]),
            median(cost.per_s for cost in costs[1:]),
        )
        for which, costs in found.items()
    }


def report(costs: dict[tuple[str, int], Cost]) -> bool:
    """Print the table; whether the aim is reached."""
    lines = [f"{'at once':>8}{'over':>10}{'CPU us':>9}{'Redis us':>10}{'per core/s':>12}{'measured/s':>12}"]
    for at_once in AT_ONCE:
        for name in ("pipeline", "pool"):
            cost = costs[name, at_once]
            row = f"{at_once:>8}{name:>10}{cost.cpu_us:>9.0f}{cost.redis_cpu_us:>10.0f}"
            lines.append(f"{row}{1e6 / cost.cpu_us:>12,.0f}{cost.per_s:>12,.0f}")
        ratio = costs["pool", at_once].cpu_us / costs["pipeline", at_once].cpu_us
        lines.append(f"{'':>8}the pool costs {ratio:.2f} times as much")
    best = costs["pipeline", AT_ONCE[-1]]
    is_reached = best.cpu_us <= CPU_US and 1e6 / best.cpu_us >= VERIFIES_PER_S
    verdict = "reached" if is_reached else "MISSED"
    lines.append(f"aim: {CPU_US} us, {VERIFIES_PER_S:,} verifies/s a core: {verdict}")
    sys.stdout.write("\n".join(lines) + "\n")
    return is_reached


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with stores() as settings, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        costs = runner.run(compare(settings, asked.requests, asked.rounds))
    return 0 if report(costs) else 1


if __name__ == "__main__":
    sys.exit(main())

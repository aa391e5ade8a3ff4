"""A gateway under load while its parts are replaced in order, and what its clients noticed of that."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID

import asyncpg
import httpx
from attrs import define, frozen

from authz import settings as settings_
from authz.accounts.keys import create_key
from authz.accounts.tenants import create_tenant
from authz.settings import Settings
from authz.stack import plan
from authz.stack.build import caddy_binary, caddy_config
from authz.stack.folder import StateFolder
from authz.types import Limits
from tests.chaos import book_tables, evidence
from tests.chaos.book_compare import Judge
from tests.chaos.book_tables import Table
from tests.chaos.load import ANSWERED_WITHIN_S, Key, Load
from tests.chaos.questions import Asked, Asker, Content, Manner
from tests.chaos.world import Behind, session, strange_keys
from tests.gateway import Gateway

WITHIN_S = 60.0
SHOWN = 10
"""Of the requests that are billed wrong, so many are printed."""
SETTLED_WITHIN_S = 60.0

_OFTEN = {Manner.STREAM: 4, Manner.SINGLE: 3, Manner.EMBED: 1}
LIMITS = (Limits(), Limits(tokens_total=50_000_000), Limits(concurrency=4))
_CLIENTS = 4
_KINDS = {"kept": (httpx.Limits(), 400), "new": (httpx.Limits(max_keepalive_connections=0), 10)}
"""Clients that keep their connections, for answers of up to 4 s, and such that make one for each request."""
_LEFT = """SELECT (SELECT count(*) FROM open_requests) + (SELECT count(*) FROM unpublished)"""
_LOST = (
    """SELECT (SELECT coalesce(sum(lost), 0) FROM journal_sequences) + (SELECT count(*) FROM dead_letters)"""
)
_IS_READ = "SELECT eof_at > $2 FROM nodes WHERE node = $1"


@define
class Clients:
    """Clients with patience and without retries: whatever is not answered whole is a failure."""

    loads: tuple[Load, ...]

    @property
    def asked(self) -> list[Asked]:
        """Return everything that was asked with a key."""
        return [asked for load in self.loads for asked in load.asked if asked.key is not None]

    def failures(self) -> list[Asked]:
        """Return what was not answered whole, though its client waited and no limit was in its way."""
        served = {key.id for load in self.loads for key in load.keys if not key.limits.requests_per_minute}
        awaited = [one for one in self.asked if one.question.manner in _OFTEN and one.key in served]
        return [asked for asked in awaited if asked.status != 200 or not asked.is_whole]

    def faults(self) -> list[tuple[int, str, str, str]]:
        """Return what each failure was: status, path, kind of client, words."""
        return [
            (asked.status, asked.question.path, asked.question.tag, asked.fault) for asked in self.failures()
        ]

    async def ask_during(self, act: Callable[[], Awaitable[None]]) -> None:
        """Ask before, during and after it."""
        async with asyncio.TaskGroup() as tasks:
            for load in self.loads:
                tasks.create_task(load.blow())
            await self.answered(20)
            await act()
            await self.answered(20)
            for load in self.loads:
                load.is_over = True

    async def answered(self, more: int) -> None:
        """Wait for so many more answers to each kind of client."""
        wished = [len(load.asked) + more for load in self.loads]
        async with asyncio.timeout(WITHIN_S):
            while any(len(load.asked) < wish for load, wish in zip(self.loads, wished, strict=True)):
                await asyncio.sleep(0.05)


@frozen
class Rolling:
    """A running gateway, its clients, and the hand that replaces its parts."""

    gateway: Gateway
    behind: Behind
    settings: Settings
    clients: Clients
    ledger: asyncpg.Connection

    @property
    def run(self) -> Path:
        """Return the folder of the sockets."""
        return self.gateway.stack.state / "run"

    def pid(self, name: str) -> int:
        """The process that runs a part now."""
        pid = self.gateway.stack.pid(name)
        assert pid is not None
        return pid

    async def restart(self, name: str) -> None:
        """End a part in order, as a service manager does, and wait for its successor."""
        before = self.pid(name)
        os.kill(before, signal.SIGTERM)
        await until(lambda: self.gateway.stack.pid(name) not in {None, before})

    async def table(self) -> Table:
        """Return what must hold once all is settled: nothing failed, and the bill is the backend's."""
        await self._settled()
        table = Table()
        asked = self.clients.asked
        ours = {key.id for load in self.clients.loads for key in load.keys}
        rows = {id_: row for id_, row in (await evidence.rows(self.ledger)).items() if row.key in ours}
        truths = await self.behind.truths()
        judge = Judge(rows, truths, frozenset())
        judge.judge(asked)
        table.note("requests", len(asked))
        table.equal("failed requests", len(self.clients.failures()), 0)
        book_tables.of_requests(table, judge)
        for wrong in judge.wrongs[:SHOWN]:
            sys.stdout.write(f"{wrong}\n")
        table.equal("lines lost, dead letters", await self.ledger.fetchval(_LOST), 0, "B4:")
        async with session(self.settings) as operator:
            tenants = {key.tenant for load in self.clients.loads for key in load.keys}
            found = await evidence.windows(self.ledger)
            windows = {tenant: totals for tenant, totals in found.items() if tenant in tenants}
            counters = await evidence.counters(operator.limiter, windows)
            book_tables.of_books(table, book_tables.spent(rows.values()), windows, counters)
        return table

    async def _settled(self) -> None:
        async with asyncio.timeout(SETTLED_WITHIN_S):
            while await self.ledger.fetchval(_LEFT):
                await asyncio.sleep(0.1)


@frozen
class SecondCaddy:
    """Another Caddy on the port of the first: a node with a journal and a metering of its own."""

    caddy: asyncio.subprocess.Process
    metering: asyncio.subprocess.Process
    node: UUID

    async def end(self, ledger: asyncpg.Connection) -> None:
        """Let it drain; its metering ends after it, when `node list` says that it has read all."""
        self.caddy.terminate()
        assert 0 == await self.caddy.wait()
        ended = await ledger.fetchval("SELECT clock_timestamp()")
        async with asyncio.timeout(WITHIN_S):
            while not await ledger.fetchval(_IS_READ, self.node, ended):
                await asyncio.sleep(0.05)
        self.metering.terminate()
        await self.metering.wait()


@asynccontextmanager
async def second_caddy(world: Rolling) -> AsyncIterator[SecondCaddy]:
    """Start it as an operator does: only the journal and the sockets are other ones."""
    stack = world.gateway.stack
    state, folder = stack.state / "second", StateFolder(stack.state)
    state.mkdir()
    journal = {"GATEWAY_JOURNAL": str(state / "journal.log")}
    edge = plan.caddy_environ(folder, stack.port, world.settings, os.environ) | journal
    edge |= {"GATEWAY_CONTROL": str(state / "control.sock"), "GATEWAY_GRACE": "30s"}
    bill = plan.service_environ(folder, os.environ) | journal
    bill |= {"GATEWAY_METRICS_SOCKET": str(state / "metering.sock")}
    binary = caddy_binary(os.environ, lambda _: None)
    with (state / "log").open("wb") as log:
        metering = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "metering"), env=bill, stdout=log, stderr=log
        )
        await listens(state / "metering.sock", "/metrics")
        caddy = await asyncio.create_subprocess_exec(
            *(str(binary), "run", "--config", str(caddy_config()), "--adapter", "caddyfile"),
            env=edge,
            stdout=log,
            stderr=log,
        )
    try:
        await listens(state / "control.sock", "/healthz")
        yield SecondCaddy(caddy, metering, UUID((state / "node").read_text().strip()))
    finally:
        for process in (caddy, metering):
            if process.returncode is None:
                process.terminate()
                await process.wait()


@asynccontextmanager
async def rolling(
    gateway: Gateway,
    behind: Behind,
    *,
    seed: int = 1,
    often: Mapping[Manner, int] = _OFTEN,
    limits: tuple[Limits, ...] = LIMITS,
    pause_s: float = 0.05,
) -> AsyncIterator[Rolling]:
    """Give a gateway clients: some keep their connections, some make one for each request."""
    settings = settings_.load({}, state=gateway.stack.state)
    async with AsyncExitStack() as stack:
        async with session(settings) as operator:
            loads = []
            for name, (kept, longest) in _KINDS.items():
                keys = []
                for number, of_tenant in enumerate(limits):
                    tenant = f"{name}-{number}-{time.monotonic_ns()}"
                    owner = await create_tenant(operator, tenant, limits=of_tenant)
                    made = await create_key(operator, tenant=tenant, name="only", limits=Limits())
                    async with operator.store.connection() as connection:
                        id_: UUID = await connection.fetchval(
                            "SELECT key_id FROM secrets WHERE lookup = $1", made.prefix
                        )
                    asker = Asker(behind.models(Content.TEXT), Content.TEXT, often, longest)
                    keys.append(Key(id_, owner, made.key, tenant, of_tenant, _CLIENTS, asker))
                client = await stack.enter_async_context(
                    httpx.AsyncClient(base_url=gateway.url, timeout=ANSWERED_WITHIN_S, limits=kept)
                )
                load = Load(seed, tuple(keys), strange_keys(settings), client)
                load.pause_s = pause_s
                loads.append(load)
        ledger = await asyncpg.connect(gateway.database_url)
        yield Rolling(gateway, behind, settings, Clients(tuple(loads)), ledger)
        await ledger.close()


async def until(is_met: Callable[[], object]) -> None:
    """Wait for a fact."""
    async with asyncio.timeout(WITHIN_S):
        while not is_met():
            await asyncio.sleep(0.02)


async def listens(socket: Path, path: str) -> None:
    """Wait until a process answers on its socket."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://local") as client,
        asyncio.timeout(WITHIN_S),
    ):
        while True:
            with suppress(httpx.TransportError):
                if (await client.get(path)).is_success:
                    return
            await asyncio.sleep(0.02)

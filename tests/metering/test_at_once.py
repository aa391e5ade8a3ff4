"""Whatever changes the bill, all at the same time: none waits for another for good, and no line is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import asyncpg
import pytest
from attrs import define, field
from prometheus_client import CollectorRegistry

from authz import settings
from authz.accounts.credits import credit_request, credit_tenant
from authz.accounts.keys import set_key_state
from authz.accounts.session import Session
from authz.accounts.tenants import set_tenant_state
from authz.admin.dead_letters import want
from authz.errors import CommandError, StoreUnavailable
from authz.limiter.limiter import Limiter
from authz.store import ADMIN_ROLE, METERING_ROLE, Store
from metering.books import Books
from metering.ledger_store import LedgerStore
from metering.metrics import Metrics
from metering.reconcile import Reconciler
from metering.retention import Retention
from metering.service import Metering
from metering.surroundings import Surroundings
from metering.upkeep import Upkeep
from tests.chaos.plan import dice
from tests.metering.test_refusals import STRANGER
from tests.metering.verifying import verified
from tests.metering.writing import KEY, LOOKUP, NODE, TENANT, JournalFile

ROUNDS = 10
MODELS = ("llama3.2:latest", "qwen3:latest")
TOKENS = 30
DAY_MS = 86_400_000
FIRST_OLD = 40
"""From so many days ago on there is a request for each round, and each round drops the oldest day."""


SLOW = """
    CREATE FUNCTION be_slow() RETURNS trigger
    LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.004); RETURN NULL; END';
    DO $$
    DECLARE name regclass;
    BEGIN
        FOREACH name IN ARRAY
            '{ledger,unpublished,usage_daily,budget_windows,learned_figures,dead_letters}'::regclass[]
        LOOP
            EXECUTE format(
                'CREATE TRIGGER slow AFTER INSERT OR UPDATE OR DELETE ON %s EXECUTE FUNCTION be_slow()', name
            );
        END LOOP;
    END $$
"""
"""Every statement takes a while, so that those of others come between any two."""


@define
class Node:
    """A journal, and a metering of its own on it."""

    journal: JournalFile
    metering: Metering
    duties: Upkeep
    requests: list[UUID] = field(factory=list)

    async def settle(self, random: Random) -> None:
        """Requests, a refusal, garbage, and a Caddy that dies: of what it served the record comes late."""
        late = [self.journal.new_id() for _ in range(random.randint(0, 2))]
        for request_id in late:
            self.journal.append(self.journal.opened(request_id))
        for _ in range(random.randint(1, 9)):
            self.requests.append(self.journal.request(model=random.choice(MODELS)))
        self.journal.append(self.journal.ended(self.journal.new_id(), **STRANGER))
        self.journal.append(b"garbage\n")
        await self.drain()
        self.journal.start()
        await self.drain()
        for request_id in late:
            self.journal.append(self.journal.ended(request_id))
        await self.drain()
        self.requests += late

    async def upkeep(self, _random: Random) -> None:
        """Sweep, catch up, make days."""
        await self.duties.round()

    async def drain(self) -> None:
        """Settle and publish what is written."""
        while await self.metering.step():
            pass


@define
class Gateway:
    """Two nodes, an operator, and what a gateway does beside."""

    nodes: list[Node]
    session: Session
    books: Reconciler
    url: str
    now: datetime
    kept_days: int = FIRST_OLD + ROUNDS - 1
    credits: int = 0

    async def credit(self, random: Random) -> None:
        """Credit the tenant's key, and a request."""
        requests = [request_id for node in self.nodes for request_id in node.requests]
        reason, at = str(random.random()), self.now
        try:
            await credit_tenant(self.session, "acme", prefix=LOOKUP, tokens=1, reason=reason, at=at)
            self.credits += 1
            await credit_request(self.session, random.choice(requests), tokens=1, reason=reason, at=at)
            self.credits += 1
        except (CommandError, IndexError):
            return  # nothing is billed yet

    async def administer(self, random: Random) -> None:
        """Change a key and its tenant, and have dead letters read again."""
        await set_key_state(self.session, LOOKUP, random.choice(["active", "disabled"]))
        await set_tenant_state(self.session, "acme", random.choice(["active", "disabled"]))
        await want(self.session, None)

    async def reconcile(self, _random: Random) -> None:
        """Compare the books."""
        await self.books.round(self.now.date())

    async def drop(self, _random: Random) -> None:
        """Drop the oldest day of the ledger, unless another policy was stored meanwhile."""
        try:
            async with Retention.opened(self.url) as retention:
                self.kept_days -= len(await retention.keep(self.kept_days - 1, [self.now]))
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, asyncpg.RaiseError):
                raise


@pytest.fixture
async def gateway(
    database: str, redis_url: str, limiter: Limiter, owner_of_tables: asyncpg.Connection, tmp_path: Path
) -> AsyncIterator[Gateway]:
    """A gateway whose old days are settled; its clocks jump, so that every duty is always due."""
    now = (await owner_of_tables.fetchval("SELECT now()")).astimezone(UTC)
    limiter.clock_us = int(now.timestamp() * 1_000_000)
    await add_tenant(owner_of_tables)
    await owner_of_tables.execute(SLOW)
    ticks = itertools.count(step=4000)
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(2):
            path = tmp_path / str(number) / "journal.log"
            journal = JournalFile(path, UUID(int=NODE.int + number), begun_ms=int(now.timestamp() * 1000))
            journal.ids = number * 1_000_000
            journal.start()
            around = Surroundings(path, database, "", clock=lambda: now, ticks=lambda: float(next(ticks)))
            stores = [await LedgerStore.connect(database) for _ in range(2)]
            versions = Store(database, role=METERING_ROLE, connections=1)
            for store in stores:
                stack.push_async_callback(store.close)
            stack.push_async_callback(versions.close)
            metering = await Metering.begin(journal.node, around, ledger=stores[0], limiter=limiter)
            stack.callback(metering.close)
            duties = Upkeep(journal.node, around, limiter, metering.finished, stores[1], versions)
            nodes.append(Node(journal, metering, duties))
        for day in range(FIRST_OLD, FIRST_OLD + ROUNDS):
            old = nodes[0].journal.new_id(at_ms=nodes[0].journal.begun_ms - day * DAY_MS)
            paid = (now - timedelta(days=day)).date().isoformat()
            windows = {"day": paid, "month": paid[:7]}
            nodes[0].journal.append(nodes[0].journal.ended(old, windows=windows))
        await nodes[0].drain()
        await nodes[0].duties.round()
        environ = {"DATABASE_URL": database, "REDIS_URL": redis_url, "GATEWAY_STATE": str(tmp_path)}
        commands, books = Store(database, role=ADMIN_ROLE), await Books.connect(database)
        stack.push_async_callback(commands.close)
        stack.push_async_callback(books.close)
        session = Session(settings.load(environ), commands, limiter, "tester")
        reconciler = Reconciler(books, limiter, Metrics(CollectorRegistry()), lambda: 0.0)
        yield Gateway(nodes, session, reconciler, database, now)


async def add_tenant(owner: asyncpg.Connection) -> None:
    """A tenant with a key."""
    await owner.execute("INSERT INTO tenants (id, name) VALUES ($1, 'acme')", TENANT)
    await owner.execute("INSERT INTO keys (id, tenant_id, name) VALUES ($1, $2, 'laptop')", KEY, TENANT)
    await owner.execute(
        "INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash) VALUES ($1, $2, $3, 'p', 'h')",
        LOOKUP,
        KEY,
        b"t" * 32,
    )


@pytest.mark.parametrize("seed", range(3))
async def test_all_at_once(
    gateway: Gateway,
    owner_of_tables: asyncpg.Connection,
    limiter: Limiter,
    capsys: pytest.CaptureFixture[str],
    seed: int,
    database: str,
) -> None:
    """Every statement ends, and each request is billed once, less what was credited, and chained."""
    jobs = [gateway.credit, gateway.administer, gateway.reconcile, gateway.drop]
    jobs += [job for node in gateway.nodes for job in (node.settle, node.upkeep)]

    async def repeat(number: int) -> None:
        random = dice(seed, str(number))
        for _ in range(ROUNDS):
            await jobs[number](random)
            await asyncio.sleep(random.random() / 100)

    async with asyncio.TaskGroup() as group:
        for number in range(len(jobs)):
            group.create_task(repeat(number))
    for node in gateway.nodes:
        await node.drain()
        await node.duties.round()
    for _ in range(gateway.kept_days - FIRST_OLD + 1):
        await gateway.drop(dice(seed, "end"))
    served = ROUNDS + sum(len(node.requests) for node in gateway.nodes)
    billed = served * TOKENS - gateway.credits
    assert gateway.credits > ROUNDS
    logged = capsys.readouterr().out
    assert [] == [line for line in logged.splitlines() if "_failed" in line or "drifted" in line]
    windows = "SELECT DISTINCT sum(used)::bigint FROM budget_windows GROUP BY scope_id, period"
    assert [billed] == [row[0] for row in await owner_of_tables.fetch(windows)]
    sums = "SELECT sum(input_tokens + output_tokens)::bigint FROM {}"
    assert billed == await owner_of_tables.fetchval(sums.format("usage_daily"))
    assert billed - ROUNDS * TOKENS == await owner_of_tables.fetchval(sums.format("ledger"))
    assert (0, 0) == (
        await owner_of_tables.fetchval("SELECT count(*) FROM unpublished"),
        await owner_of_tables.fetchval("SELECT sum(lost)::int FROM journal_sequences"),
    )
    assert [] == (await verified(database)).faults

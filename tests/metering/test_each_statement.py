"""The connection is lost at each statement of metering in turn: every request is billed once all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from attrs import define, field

from authz.errors import StoreUnavailable
from authz.limiter.limiter import Limiter
from authz.store import METERING_ROLE, prepare
from authz.store import Store as Versions
from metering.ledger_store import LedgerStore
from metering.service import Metering
from metering.surroundings import Surroundings
from metering.upkeep import Upkeep
from tests.metering.conftest import Clock
from tests.metering.test_refusals import STRANGER
from tests.metering.writing import NODE, JournalFile

TOKENS = 30


class Fragile(asyncpg.Connection):
    """Is ended by Postgres at one of its statements: before the statement, or once it was done."""

    killer: asyncpg.Connection | None = None
    countdown = 0
    is_done_first = False

    async def execute(self, query: str, *args: Any, **rest: Any) -> Any:
        """Run a statement."""
        return await self._or_end(super().execute, query, *args, **rest)

    async def fetch(self, query: str, *args: Any, **rest: Any) -> Any:
        """Run a query for rows."""
        return await self._or_end(super().fetch, query, *args, **rest)

    async def fetchrow(self, query: str, *args: Any, **rest: Any) -> Any:
        """Run a query for a row."""
        return await self._or_end(super().fetchrow, query, *args, **rest)

    async def fetchval(self, query: str, *args: Any, **rest: Any) -> Any:
        """Run a query for a value."""
        return await self._or_end(super().fetchval, query, *args, **rest)

    async def _or_end(self, run: Callable[..., Awaitable[Any]], *args: Any, **rest: Any) -> Any:
        self.countdown -= 1
        is_due = self.countdown == 0 and self.killer is not None
        if is_due and self.is_done_first:
            await run(*args, **rest)
        if is_due and self.killer is not None:
            await self.killer.execute("SELECT pg_terminate_backend($1)", self.get_server_pid())
        return await run(*args, **rest)


@define
class Node:
    """Metering that begins anew whenever its connection is lost, as the service does."""

    url: str
    limiter: Limiter
    journal: JournalFile
    versions: Versions
    killer: asyncpg.Connection
    clock: Clock = field(factory=Clock)
    written: int = 0

    def write(self) -> None:
        """Requests, a refusal, garbage, progress, and a Caddy that dies; one record comes late."""
        late, running = self.journal.new_id(), self.journal.new_id()
        self.journal.append(self.journal.opened(late))
        self.journal.append(self.journal.progress((late, 5, 20, 0)))
        for _ in range(3):
            self.journal.request()
        self.journal.append(self.journal.ended(self.journal.new_id(), **STRANGER))
        self.journal.append(b"garbage\n")
        self.journal.start()
        self.journal.append(self.journal.opened(running))
        self.journal.append(self.journal.ended(late))
        self.journal.append(self.journal.ended(running))
        self.written += 5

    async def settle(self, number: int, *, in_duties: bool, is_done_first: bool) -> bool:
        """Settle what is written; the connection is lost at a statement. False if there are not so many."""
        is_reached = False
        while True:
            stores = [await self._store() for _ in range(2)]
            fragile = stores[in_duties]._connection
            assert isinstance(fragile, Fragile)
            if not is_reached:
                fragile.killer, fragile.countdown, fragile.is_done_first = self.killer, number, is_done_first
            try:
                await self._run(*stores)
            except StoreUnavailable:
                is_reached = True
                continue
            finally:
                is_cut_off = stores[1].is_closed
                for store in stores:
                    await store.close()
            if not is_cut_off:
                return is_reached
            is_reached = True

    async def _run(self, loop: LedgerStore, beside: LedgerStore) -> None:
        self.clock.seconds += 4000  # every duty is due
        around = Surroundings(self.journal.path, self.url, "", clock=self.clock.now, ticks=self.clock.ticks)
        metering = await Metering.begin(NODE, around, ledger=loop, limiter=self.limiter)
        try:
            for _ in range(2):
                self.clock.seconds += 1
                while await metering.step():
                    pass
            duties = Upkeep(NODE, around, self.limiter, metering.finished, beside, self.versions)
            await duties.round()
        finally:
            metering.close()

    async def _store(self) -> LedgerStore:
        connection = await asyncpg.connect(self.url, connection_class=Fragile)
        await prepare(connection, METERING_ROLE)
        return LedgerStore(connection)


@pytest.fixture
async def node(database: str, limiter: Limiter, journal: JournalFile) -> AsyncIterator[Node]:
    """A node whose duties and loop have a connection each."""
    versions = Versions(database, role=METERING_ROLE, connections=1)
    killer = await asyncpg.connect(database)
    yield Node(database, limiter, journal, versions, killer)
    await versions.close()
    await killer.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("is_done_first", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("in_duties", [False, True], ids=["loop", "duties"])
async def test_a_lost_connection_costs_nothing(node: Node, *, in_duties: bool, is_done_first: bool) -> None:
    """B2, B4: whichever statement it is, all is billed once, set aside once, and published."""
    number, is_reached = 0, True
    while is_reached:
        number += 1
        node.write()
        is_reached = await node.settle(number, in_duties=in_duties, is_done_first=is_done_first)
    assert number > (5 if in_duties else 20)
    (sums,) = await node.killer.fetch(
        "SELECT (SELECT sum(input_tokens + output_tokens)::bigint FROM ledger) AS billed,"
        " (SELECT sum(input_tokens + output_tokens)::bigint FROM usage_daily) AS used,"
        " (SELECT count(*) FROM dead_letters) AS letters,"
        " (SELECT sum(refusals)::bigint FROM refusals_per_minute) AS refusals,"
        " (SELECT sum(lost)::int FROM journal_sequences) AS lost,"
        " (SELECT count(*) FROM open_requests) AS open, (SELECT count(*) FROM unpublished) AS unpublished"
    )
    billed = node.written * TOKENS
    assert (billed, billed, number, number, 0, 0, 0) == tuple(sums)
    windows = "SELECT DISTINCT sum(used)::bigint FROM budget_windows GROUP BY scope_id, period"
    assert [billed] == [row[0] for row in await node.killer.fetch(windows)]

"""After the storm: wait until nothing moves, then compare everything with everything."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from uuid import UUID

import asyncpg
from attrs import Factory, define
from redis.asyncio import Redis

from authz.limiter.limiter import Limiter
from tests.chaos import book_tables, evidence
from tests.chaos.book_compare import Judge, Wrong
from tests.chaos.book_tables import Table
from tests.chaos.breaking import OLD_DAYS, Breaker
from tests.chaos.evidence import Keeper, Lines, Row
from tests.chaos.load import Load
from tests.chaos.plan import Blow
from tests.chaos.questions import Manner
from tests.chaos.world import DEADLINE_S, World, budgets

QUIET_WITHIN_S = DEADLINE_S + 62 + 60
"""A reservation whose open line was never written is held until its deadline + 62 s, then swept."""

_ALARMS = ("_drifted", "file_lost", "reservation_overrun", "rows_refused")
_WAITING = """SELECT 'open requests', count(*) FROM open_requests
    UNION ALL SELECT 'unpublished rows', count(*) FROM unpublished"""
_DROPPED = "SELECT count(*) FROM admin_audit WHERE action = 'ledger_day_dropped'"
_COUNTED = "SELECT coalesce(sum(refusals), 0)::bigint FROM refusals_per_minute"


@define
class Aftermath:
    """The traces of a run, and the table that judges them."""

    world: World
    limiter: Limiter
    ledger: asyncpg.Connection
    redis: Redis
    load: Load
    breaker: Breaker
    keeper: Keeper
    table: Table = Factory(Table)
    wrongs: list[Wrong] = Factory(list)

    async def until_quiet(self) -> None:
        """Wait for the facts of quiescence; a run that never gets there is judged as it is."""
        begun, since = time.monotonic(), await self.limiter.now()
        while time.monotonic() - begun < QUIET_WITHIN_S and not await self._is_quiet(since):
            await asyncio.sleep(0.2)
        self.table.note("seconds until quiet", round(time.monotonic() - begun, 1))

    async def judge(self) -> None:
        """Fill the table."""
        rows, lines = await evidence.rows(self.ledger), self.keeper.lines()
        self._of_load()
        await self._of_requests(rows, lines)
        await self._of_books(rows)
        await self._of_journal(rows, lines)

    async def _is_quiet(self, since: datetime) -> bool:
        is_read: bool = await self.ledger.fetchval("SELECT min(eof_at) > $1 FROM nodes", since)
        return is_read and not any((await self._leftovers()).values())

    async def _leftovers(self) -> dict[str, int]:
        waiting = await self.ledger.fetch(_WAITING)
        return dict(map(tuple, waiting)) | await evidence.still_held(self.redis, self.load.keys)

    def _of_load(self) -> None:
        for blow in Blow:
            self.table.note(blow.value, self.breaker.done[blow])
        for manner in Manner:
            count = sum(asked.question.manner is manner for asked in self.load.asked)
            self.table.note(f"requests: {manner.value}", count)

    async def _of_requests(self, rows: dict[UUID, Row], lines: Lines) -> None:
        truths = await self.world.behind.truths()
        judge = Judge(rows, truths, frozenset(lines.boots[:-1]))
        judge.judge(self.load.asked)
        self.wrongs = judge.wrongs
        book_tables.of_requests(self.table, judge)

    async def _of_books(self, rows: dict[UUID, Row]) -> None:
        spent, windows = book_tables.spent(rows.values()), await evidence.windows(self.ledger)
        counters = await evidence.counters(self.limiter, windows)
        book_tables.of_books(self.table, spent, windows, counters)
        book_tables.of_budgets(self.table, spent, budgets(self.load.keys))
        for name, count in (await self._leftovers()).items():
            self.table.equal(f"left over: {name}", count, 0, "L4, B3:")

    async def _of_journal(self, rows: dict[UUID, Row], lines: Lines) -> None:
        table, ledger = self.table, self.ledger
        sequences = await ledger.fetch("SELECT boot, next, lost, cardinality(ahead) FROM journal_sequences")
        book_tables.of_lines(table, lines, {boot: tuple(seen) for boot, *seen in sequences})
        book_tables.of_records(table, lines, rows, await ledger.fetchval(_COUNTED))
        dead = await ledger.fetchval("SELECT count(*) FROM dead_letters")
        table.equal("dead letters", dead, lines.torn, "B4: torn lines")
        table.at_most("torn lines", lines.torn, 2 * self.breaker.done[Blow.FULL], "a Caddy on a full disk:")
        table.equal("days dropped meanwhile", await ledger.fetchval(_DROPPED), OLD_DAYS, "by the policy:")
        log = (self.world.stack.state / "logs" / "metering.log").read_text().splitlines()
        alarms = sum(any(word in line for word in _ALARMS) for line in log)
        table.equal("alarms of metering", alarms, 0, "B3, L3:")

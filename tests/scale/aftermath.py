"""After a run: what its clients saw, the backend did and the books say must fit together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
from attrs import Factory, define
from redis.asyncio.cluster import ClusterNode, RedisCluster

from authz.limiter import address
from authz.limiter.limiter import Limiter
from authz.settings import Settings
from tests.chaos import book_tables, evidence
from tests.chaos.book_compare import Judge, Wrong
from tests.chaos.book_tables import Table
from tests.chaos.evidence import Row
from tests.chaos.load import Key
from tests.chaos.questions import Asked, Manner
from tests.chaos.world import Behind, budgets
from tests.scale.balancer import REFUSED, TimedLoad

OUTAGE_S: Final = 15
"""The longest time after a blow in which clients may be asked to come again."""

_WAITING: Final = """SELECT 'open requests', count(*) FROM open_requests
    UNION ALL SELECT 'unpublished rows', count(*) FROM unpublished
    UNION ALL SELECT 'dead letters', count(*) FROM dead_letters"""
_LEAVE: Final = frozenset({Manner.HANG_UP, Manner.ABANDON})


@define
class Blow:
    """Something that was lost or replaced, and when the last client was refused for it."""

    name: str
    at_s: float
    done_s: float = math.inf
    """When a process that was killed was gone, and its connections with it."""
    recovered_s: float = math.inf
    killed_boot: str = ""
    """Of a Caddy that was killed: what was in flight on it may be lost."""

    @property
    def outage_s(self) -> float:
        """Return how long clients were asked to come again, infinite while there is no end of it."""
        return self.recovered_s - self.at_s


@define
class Aftermath:
    """The traces of a run, and the table that judges them."""

    settings: Settings
    behind: Behind
    limiter: Limiter
    load: TimedLoad
    blows: tuple[Blow, ...]
    table: Table = Factory(Table)
    wrongs: list[Wrong] = Factory(list)
    lost: list[Asked] = Factory(list)

    async def judge(self, *, quiet_within_s: float) -> None:
        """Wait until nothing moves, at most for so long, and fill the table."""
        ledger = await asyncpg.connect(self.settings.database_url)
        redis = _redis(self.settings.redis_url)
        try:
            left = await self._left(ledger, redis, quiet_within_s)
            rows = await evidence.rows(ledger)
            self._of_blows()
            self._of_clients()
            await self._of_requests(rows)
            await self._of_books(ledger, rows)
            await self._of_slots()
            for name, count in left.items():
                self.table.equal(f"left over: {name}", count, 0, "L4, B3:")
        finally:
            await redis.aclose()
            await ledger.close()

    async def _left(self, ledger: asyncpg.Connection, redis: Any, within_s: float) -> dict[str, int]:
        begun_s, since = time.monotonic(), await self.limiter.now()
        while True:
            waiting = await ledger.fetch(_WAITING)
            left = dict(map(tuple, waiting)) | await evidence.still_held(redis, self.load.keys)
            is_over = time.monotonic() - begun_s > within_s
            if is_over or (not any(left.values()) and await self._are_read(ledger, since)):
                self.table.note("seconds until quiet", round(time.monotonic() - begun_s, 1))
                return left
            await asyncio.sleep(0.2)

    async def _are_read(self, ledger: asyncpg.Connection, since: datetime) -> bool:
        are_read: bool = await ledger.fetchval("SELECT min(eof_at) > $1 FROM nodes", since)
        return are_read

    def _of_blows(self) -> None:
        for blow in self.blows:
            self.table.at_most(
                f"{blow.name}: seconds until its last refusal", round(blow.outage_s, 1), OUTAGE_S
            )

    def _of_clients(self) -> None:
        """Only what was in flight on a killed Caddy is lost; a refusal says when to come again."""
        statuses = Counter(asked.status for asked in self.load.asked)
        for status, count in sorted(statuses.items()):
            self.table.note(f"answers with status {status}", count)
        self.lost = [asked for asked in self.load.asked if _is_lost(asked)]
        on_killed = [asked for asked in self.lost if self._was_on_killed(asked)]
        self.table.note("requests lost in flight on a killed Caddy", len(on_killed))
        self.table.equal("requests lost otherwise", len(self.lost) - len(on_killed), 0)
        refused = [asked for asked in self.load.asked if asked.status in REFUSED]
        self.table.equal("refusals without Retry-After", sum(not asked.retry_ms for asked in refused), 0)

    def _was_on_killed(self, asked: Asked) -> bool:
        began_s, ended_s = self.load.spans_s[id(asked)]
        return any(
            blow.killed_boot and began_s <= blow.done_s and blow.at_s <= ended_s for blow in self.blows
        )

    def losses(self) -> list[str]:
        """Describe each lost request: how long it took, what had happened before, what its client saw."""
        found = []
        for asked in self.lost:
            began_s, ended_s = self.load.spans_s[id(asked)]
            before = [blow for blow in self.blows if blow.at_s <= ended_s][-1:]
            after = "".join(f", {ended_s - blow.at_s:.2f} s after {blow.name!r}" for blow in before)
            found.append(f"lost: {ended_s - began_s:.2f} s{after}, status {asked.status}: {asked.fault}")
        return found

    async def _of_requests(self, rows: dict[UUID, Row]) -> None:
        killed = frozenset(UUID(blow.killed_boot) for blow in self.blows if blow.killed_boot)
        judge = Judge(rows, await self.behind.truths(), killed)
        judge.judge(self.load.asked)
        self.wrongs = judge.wrongs
        book_tables.of_requests(self.table, judge)

    async def _of_books(self, ledger: asyncpg.Connection, rows: dict[UUID, Row]) -> None:
        spent, windows = book_tables.spent(rows.values()), await evidence.windows(ledger)
        counters = await evidence.counters(self.limiter, windows)
        book_tables.of_books(self.table, spent, windows, counters)
        book_tables.of_budgets(self.table, spent, budgets(self.load.keys))

    async def _of_slots(self) -> None:
        """L4: at no time more answers of a key or tenant than its slots, by the backend's clock."""
        async with httpx.AsyncClient(base_url=self.behind.url) as client:
            entries = (await client.get("/test/tally")).json()
        ended = [entry for entry in entries if entry["end"] == "stop"]
        for key in budgets(self.load.keys):
            if key.limits.concurrency is not None:
                mine = [entry for entry in ended if entry["tag"].startswith(_tag(key))]
                most = _most_at_once((entry["began_s"], entry["ended_s"]) for entry in mine)
                self.table.at_most(f"answers at once of {key.name}", most, key.limits.concurrency, "L4:")


def _redis(url: str) -> Any:
    """Return redis-py's own client of the cluster, to look inside; a node may be gone."""
    named: list[dict[str, Any]] = [pool.connection_kwargs for pool in address.pools(url)]
    return RedisCluster(
        startup_nodes=[ClusterNode(each["host"], each["port"]) for each in named],
        password=named[0]["password"],
        ssl=True,
        ssl_ca_certs=named[0]["ssl_ca_certs"],
        socket_connect_timeout=2,
    )


def _tag(key: Key) -> str:
    """Return how the tags of a key's requests begin, of a tenant those of its keys."""
    return f"{key.name.removeprefix('tenant ')}-"


def _is_lost(asked: Asked) -> bool:
    if asked.question.manner is Manner.ABANDON:
        return False
    if asked.status == HTTPStatus.OK:
        return not asked.is_whole and asked.question.manner not in _LEAVE
    return not (asked.status in REFUSED or httpx.codes.is_client_error(asked.status))


def _most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    changes = sorted(change for began, ended in spans for change in ((began, 1), (ended, -1)))
    at_once, most = 0, 0
    for _, change in changes:
        at_once += change
        most = max(most, at_once)
    return most

"""What Postgres knew of a tenant at one moment, read batch by batch: a rebuild sends it to Redis."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

import sql
from authz.limiter.admission import Batch, Reading
from authz.types import OpenRequest, Total

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

KEPT: Final = timedelta(days=2)
"""Windows of days and months that ended longer ago pay for no request, in whatever time zone."""

CLOSED_S: Final = 120
"""Ids closed longer ago are too old to be admitted again."""

FETCHED: Final = 600
"""Rows that Postgres is asked for at once: of a tenant with millions, each question takes its time."""

BATCH, OPEN_BATCH = 100, 50
"""Rows of a batch: about a millisecond of Redis and of this process, and no other request waits longer."""

_queries = sql.load("authz")


@frozen
class Snapshot:
    """What Postgres knew of a lost tenant at one moment, to be read piece by piece."""

    reading: Reading
    _keys: Any
    _totals: Any
    _closed: Any
    _open: Any

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield all there is of the tenant, what is monotone first."""
        async for rows in _pages(self._keys, BATCH):
            yield Batch(key_versions=tuple((row["id"], row["version"]) for row in rows))
        async for rows in _pages(self._totals, BATCH):
            yield Batch(totals=tuple(Total(*row) for row in rows))
        async for rows in _pages(self._closed, BATCH):
            yield Batch(closed=tuple(row["request_id"] for row in rows))
        async for rows in _pages(self._open, OPEN_BATCH):
            yield Batch(open_requests=tuple(_open_request(row) for row in rows))


async def _pages(cursor: Any, size: int) -> AsyncIterator[list[asyncpg.Record]]:
    """Yield the rows of a cursor in pages; Postgres is asked for several at once."""
    while rows := await cursor.fetch(FETCHED):
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


@asynccontextmanager
async def opened(connection: Any, reading: Reading) -> AsyncIterator[Snapshot]:
    """Open cursors on all that a rebuild needs, in a transaction that sees one moment."""
    tenant, day = reading.tenant, reading.read_at.date() - KEPT
    since = reading.read_at - timedelta(seconds=CLOSED_S)
    async with (
        _queries.key_versions_cursor(connection, tenant=tenant) as keys,
        _queries.totals_cursor(connection, tenant=tenant, day=day, month=day.replace(day=1)) as totals,
        _queries.closed_requests_cursor(connection, tenant=tenant, since=since) as closed,
        _queries.open_requests_cursor(connection, tenant=tenant) as running,
    ):
        yield Snapshot(reading, await keys, await totals, await closed, await running)


def _open_request(row: asyncpg.Record) -> OpenRequest:
    day: date = row["day"]
    return OpenRequest(
        request_id=row["request_id"],
        key=row["key_id"],
        held_input=row["held_input"],
        held_output=row["held_output"],
        day=day,
        month=row["month"],
        deadline=row["deadline"],
    )

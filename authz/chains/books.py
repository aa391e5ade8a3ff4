"""Read the ledger, the audit and their chains over one connection, as a role that writes nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from attrs import define, frozen

import sql
from authz import postgres
from authz.chains import tree
from authz.chains.links import Day, Link, named
from authz.errors import StoreUnavailable
from authz.store import AUDITOR_ROLE, LACKING, OLDER, UNREACHABLE, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

LINKS_AT_ONCE: Final = 1000

EARLY: Final = timedelta(days=1)
LATE: Final = timedelta(days=3)
"""Most rows are chained between so long before the day of their ids begins, and so long after that."""

_CONNECT_S: Final = 5.0
_EPOCH: Final = date(1970, 1, 1)
_MS: Final = timedelta(milliseconds=1)

_queries: Final = sql.load("chains")


@frozen
class RowFault:
    """A row that is not as it was chained: leaf is None if it is missing, chain if it was never chained."""

    id: bytes
    leaf: bytes | None
    chain: str | None
    number: int | None

    @property
    def name(self) -> str:
        """Return the name of the row."""
        return named(self.id)

    @property
    def day(self) -> date:
        """Return the day, in UTC, of its id; only of a ledger row."""
        return _EPOCH + timedelta(milliseconds=int.from_bytes(self.id[:6]))


@frozen
class Place:
    """A row of the ledger as a text, its chain's name and number, and its link; all None if none has it."""

    entry: int
    text: str
    chain: str | None
    number: int | None
    link: Link | None


@define
class Books:
    """Every method raises StoreUnavailable."""

    _connection: asyncpg.Connection[asyncpg.Record]

    async def identity(self) -> UUID:
        """Return which database this is."""
        found: UUID = await _queries.identity(self._connection)
        return found

    async def chains(self) -> dict[str, int]:
        """Return the chains, by name."""
        return {row["name"]: row["id"] async for row in _queries.chains(self._connection)}

    async def links(self, chain: str, number: int, *, after: int = 0) -> AsyncIterator[Link]:
        """Yield the links of a chain, by its name and number, that come after a link."""
        while True:
            page = [
                Link(chain, *row.values())
                async for row in _queries.links(
                    self._connection, chain=number, after=after, count=LINKS_AT_ONCE
                )
            ]
            for link in page:
                yield link
            if len(page) < LINKS_AT_ONCE:
                return
            after = page[-1].number

    async def open_days(
        self, chain: str, number: int, *, closed: Day | None, last: int | None = None
    ) -> list[Day]:
        """Put the links of a chain, by its name and number, that follow its closed days under roots."""
        rows = _queries.open_days(
            self._connection,
            chain=number,
            after=closed.last if closed else 0,
            last=last,
            closed=closed.day if closed else None,
        )
        days = []
        async for row in rows:
            hashes = tree.split(row["hashes"])
            days.append(Day(chain, row["day"], row["first"], row["last"], tree.root(hashes), hashes[-1]))
        return days

    async def hashes(self, number: int, first: int, last: int) -> list[bytes]:
        """Return the hashes of the links of a chain, by its number, from one to another that are kept."""
        joined = await _queries.hashes(self._connection, chain=number, first=first, last=last)
        return tree.split(joined or b"")

    async def places(self, request: UUID, around: timedelta) -> list[Place]:
        """Return the rows of a request, and the links that were made about their time and have them."""
        rows = _queries.places(self._connection, request=request, around=around)
        return [
            Place(row["entry"], row["text"], row["chain"], row["chain_number"], _link(row))
            async for row in rows
        ]

    async def days(self) -> list[Day]:
        """Return the days that are under a root."""
        return [Day(*row.values()) async for row in _queries.days(self._connection)]

    async def oldest_day(self) -> date:
        """Return the day before which everything is dropped."""
        day: date = await _queries.oldest_day(self._connection)
        return day

    async def restored_at(self) -> datetime | None:
        """Return when the database was last restored from a backup."""
        moment: datetime | None = await _queries.restored_at(self._connection)
        return moment

    async def row_days(self) -> list[tuple[date, bool]]:
        """Return the days, in UTC, of the ids of rows, also of those that were chained.

        With each, whether the ledger still has that day.
        """
        rows = _queries.row_days(self._connection)
        return [(_EPOCH + timedelta(days=row["day"]), row["has_rows"]) async for row in rows]

    async def ledger_faults(self, day: date) -> AsyncIterator[RowFault]:
        """Yield the rows of a day that are not as they were chained about that day."""
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        async with _queries.ledger_faults_cursor(
            self._connection,
            first=_floor(midnight),
            until=_floor(midnight + timedelta(days=1)),
            since=midnight - EARLY,
            before=midnight + LATE,
        ) as rows:
            async for row in rows:
                yield RowFault(*row.values())

    async def late_rows(self) -> AsyncIterator[tuple[RowFault, bool]]:
        """Yield the rows that were chained at another time, and whether they are as they were then."""
        async with _queries.late_rows_cursor(
            self._connection, early_ms=EARLY // _MS, late_ms=LATE // _MS
        ) as rows:
            async for row in rows:
                fault = RowFault(row["id"], row["leaf"], row["chain"], row["number"])
                yield fault, row["leaf"] == row["chained"]

    async def people_faults(self) -> list[tuple[str, UUID]]:
        """Return the end users and addresses that stand where another one was, each with its id."""
        return [(row["kind"], row["id"]) async for row in _queries.people_faults(self._connection)]

    async def audit_faults(self) -> list[RowFault]:
        """Return the rows of the audit that are not as they were chained."""
        rows = _queries.audit_faults(self._connection)
        return [RowFault(*row.values()) async for row in rows]


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[Books]:
    """Connect as the auditor."""
    try:
        connection = await postgres.connect(database_url, timeout=_CONNECT_S)
        try:
            await prepare(connection, AUDITOR_ROLE)
            await _queries.write_texts(connection)
            yield Books(connection)
        finally:
            await connection.close()
    except LACKING as error:
        raise StoreUnavailable(OLDER) from error
    except UNREACHABLE as error:
        kind = type(error).__name__
        raise StoreUnavailable(f"Postgres can't be asked ({kind}): check DATABASE_URL.") from error


def _link(row: asyncpg.Record) -> Link | None:
    if row["chain"] is None:
        return None
    return Link(*(row[name] for name in ("chain", "number", "at", "version", "ids", "leaves", "hash")))


def _floor(moment: datetime) -> UUID:
    return UUID(int=int(moment.timestamp()) * 1000 << 80)

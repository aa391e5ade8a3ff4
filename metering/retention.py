"""Retention: journal files until they are read and some more came, days of the ledger by policy."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

import structlog
from attrs import define

import sql
from authz.errors import GatewayError
from metering.connection import Connection
from metering.files import OpenFile, older

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import date, datetime
    from pathlib import Path
    from uuid import UUID

    from metering.journal_store import JournalStore
    from metering.ledger_store import LedgerStore

log: Final = structlog.get_logger()

AHEAD_DAYS: Final = 7
"""Partitions made ahead, so that midnight is like any other moment."""

KEPT_FILES: Final = 16
"""Rotated journal files that stay after they were read: for a look back, not for the bill."""

KEPT_MARKS_DAYS: Final = 30

CLOCKS_DIFFER: Final = timedelta(hours=1)
"""How far another clock may be from Postgres's while days are dropped."""

FORGOTTEN_AT_ONCE: Final = 10_000


class ClocksDisagreeError(GatewayError):
    """Clocks differ by so much that no day is dropped by any of them."""


@define
class Retention(Connection):
    """Drops days, as the owner of the tables, over a connection of its own.

    Every method raises StoreUnavailable; those that write raise RowsRefusedError too.
    """

    _queries: ClassVar[Any] = sql.load("retention")
    _role: ClassVar[str | None] = None

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[Retention]:
        """Connect for one round of retention."""
        retention = await cls.connect(url)
        try:
            await retention.be_patient_briefly()
            yield retention
        finally:
            await retention.close()

    async def be_patient_briefly(self) -> None:
        """Give up what can't be done soon."""
        await self._do("be_patient_briefly")

    async def keep(self, kept_days: int | None, moments: Iterable[datetime]) -> list[date]:
        """Store the policy and drop the days beyond it; returns those dropped.

        Stops at the first day that is refused. Drops nothing unless these clocks agree with Postgres's.
        """
        await self._one("keep_days", days=kept_days)
        if kept_days is None or not await self._one("alone"):
            return []
        await self._check_clocks(moments)
        dropped = []
        for row in await self._rows("old_days", kept=kept_days):
            day: date = row["day"]
            if not row["is_closed"] and not await self._one("close_day", day=day):
                log.warning("metering.ledger_day_waits", day=day.isoformat(), reason="unpublished rows")
                break
            if row["is_attached"]:
                await self._run(row["detach"])
            await self._run(row["remove"])
            log.info("metering.ledger_day_dropped", day=day.isoformat())
            dropped.append(day)
        await self._forget(await self._one("oldest_day"))
        return dropped

    async def _check_clocks(self, moments: Iterable[datetime]) -> None:
        now = await self._one("clock")
        for moment in moments:
            if abs(moment - now) > CLOCKS_DIFFER:
                sentence = f"No day of the ledger is dropped: clocks say {moment} and {now}; set them right."
                raise ClocksDisagreeError(sentence)

    async def _forget(self, before: date) -> None:
        for query in ("forget_refusals", "forget_letters", "forget_windows"):
            while await self._one(query, before=before, count=FORGOTTEN_AT_ONCE) == FORGOTTEN_AT_ONCE:
                pass
        await self._one("forget_sequences", before=before)
        for row in await self._rows("forgettable_links", before=before):
            await self._do("forget_links", **row)


async def prepare_days(ledger: LedgerStore, today: date) -> None:
    """Make the partitions of the days to come."""
    for ahead in range(AHEAD_DAYS + 1):
        await ledger.ensure_partition(today + timedelta(days=ahead))


async def keep_journal(
    journal: JournalStore,
    node: UUID,
    active: Path,
    finished: Iterable[Path],
    *,
    since: datetime | None = None,
) -> None:
    """Remove the oldest of the files that are committed to their end; forget marks of missing files.

    What was last written to before a moment goes, too: there are addresses in it. A mark lives as long as
    its file: without it the file would be read again.
    """
    read = list(finished)
    old = [path for path in read if since is not None and _written_at(path) < since.timestamp()]
    for path in dict.fromkeys((*read[:-KEPT_FILES], *old)):
        path.unlink(missing_ok=True)
        log.info("metering.journal_file_removed", name=path.name)
    there_are = [_fingerprint(path) for path in (*older(active), active)]
    kept = [fingerprint for fingerprint in there_are if fingerprint is not None]
    if len(kept) == len(there_are):
        await journal.forget_marks(node, kept=kept, days=KEPT_MARKS_DAYS)


def _written_at(path: Path) -> float:
    """Return when a file was last written to, in seconds since 1970; infinity if it is not there any more."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _fingerprint(path: Path) -> bytes | None:
    """Return what a file's marks are known by; None if it can't be read now, b"" if there is none."""
    try:
        file = OpenFile.open(path)
    except FileNotFoundError:  # renamed or removed since it was listed
        return None
    try:
        return b"" if file.identity.size == 0 else file.fingerprint(is_final=True)
    finally:
        file.close()

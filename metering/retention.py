"""What is kept: journal files until they are read and some more came, days of the ledger by policy."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
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


async def keep_ledger(ledger: LedgerStore, today: date, *, ledger_days: int | None) -> None:
    """Make the days to come, drop those past; None keeps all."""
    for ahead in range(AHEAD_DAYS + 1):
        await ledger.ensure_partition(today + timedelta(days=ahead))
    if ledger_days is None:
        return
    first = today - timedelta(days=ledger_days)
    for day in await ledger.partitions():
        if day < first and await ledger.drop_partition(day):
            log.info("metering.ledger_day_dropped", day=day.isoformat())
    await ledger.forget_refusals(first)


async def keep_journal(journal: JournalStore, node: UUID, finished: Iterable[Path]) -> None:
    """Remove the oldest of the files that are committed to their end, and forget where that was."""
    for path in list(finished)[:-KEPT_FILES]:
        path.unlink(missing_ok=True)
        log.info("metering.journal_file_removed", name=path.name)
    await journal.forget_marks(node, days=KEPT_MARKS_DAYS)

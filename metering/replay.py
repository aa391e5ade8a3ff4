"""Read dead letters again, when an operator wants it: after an update that understands the line, or once
Postgres takes the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from metering import dead_rows
from metering.connection import RowsRefusedError
from metering.journal import understand
from metering.settle import Batch

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from metering.journal_store import JournalStore
    from metering.rows import Letter, Line
    from metering.settle import Settlement

log: Final = structlog.get_logger()

AT_ONCE: Final = 100


async def replay(journal: JournalStore, settlement: Settlement, *, node: UUID, at: datetime) -> int:
    """Settle the wanted dead letters that are understood now. Returns how many.

    One by one, so that one which Postgres refuses costs no other. A letter that was settled before
    changes nothing, so dying in between is harmless.
    """
    letters = await journal.wanted_letters(node, AT_ONCE)
    understood = [letter.id for letter in letters if await _is_settled(letter, settlement, at)]
    if letters:
        await journal.letters_replayed(understood, tried=[letter.id for letter in letters])
        log.info("metering.letters_replayed", understood=len(understood), tried=len(letters))
    return len(understood)


async def _is_settled(letter: Letter, settlement: Settlement, at: datetime) -> bool:
    settle = _settle_row if letter.reason.startswith(dead_rows.REASON) else _settle_line
    try:
        return await settle(letter.line, settlement, at)
    except RowsRefusedError:
        return False


async def _settle_line(line: Line, settlement: Settlement, at: datetime) -> bool:
    page = await settlement.without_too_old([line], understand([line]), at)
    if page.dead:
        return False
    await settlement.settle(Batch(page, at))
    return True


async def _settle_row(line: Line, settlement: Settlement, _at: datetime) -> bool:
    row = dead_rows.read(line.data)
    if row is None:
        return False
    await settlement.settle_row(row)
    return True

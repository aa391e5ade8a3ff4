"""Read dead letters again: after an update that understands them, when an operator wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from metering.connection import RowsRefusedError
from metering.journal import understand
from metering.settle import Batch

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from metering.journal_store import JournalStore
    from metering.rows import Letter
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
    page = await settlement.without_too_old([letter.line], understand([letter.line]), at)
    if page.dead:
        return False
    try:
        await settlement.settle(Batch(page, at))
    except RowsRefusedError:
        return False
    return True

"""What metering does now and then, beside the journal: versions, sweeps, dead letters, retention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from attrs import define, field

from authz import versions
from metering.orphans import sweep
from metering.replay import replay
from metering.retention import keep_journal, keep_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from authz.limiter.limiter import Limiter
    from authz.store import Store as Versions
    from metering.journal_store import JournalStore
    from metering.ledger_store import LedgerStore
    from metering.settle import Settlement

log: Final = structlog.get_logger()

VERSIONS_EVERY_S: Final = 5
REPLAY_EVERY_S: Final = 5
SWEEP_EVERY_S: Final = 30
RETENTION_EVERY_S: Final = 3600


@define
class Upkeep:
    """Does what is due; each duty is short, and repeating it changes nothing."""

    _node: UUID
    _journal: JournalStore
    _ledger: LedgerStore
    _settlement: Settlement
    _limiter: Limiter
    _versions: Versions
    _ledger_days: int | None
    _due_s: dict[str, float] = field(factory=dict)

    async def retain(self, ticks_s: float, *, at: datetime, finished: Callable[[], Iterable[Path]]) -> None:
        """Make the ledger's next days, drop what policy says; needs no Redis."""
        if self._is_due("retention", ticks_s, RETENTION_EVERY_S):
            await keep_ledger(self._ledger, at.date(), ledger_days=self._ledger_days)
            await keep_journal(self._journal, self._node, finished())

    async def replay(self, ticks_s: float, *, at: datetime) -> None:
        """Read dead letters again that an operator wants."""
        if self._is_due("replay", ticks_s, REPLAY_EVERY_S):
            await replay(self._journal, self._settlement, node=self._node, at=at)

    async def repeat(self, ticks_s: float, *, at: datetime) -> None:
        """Repeat what a command could not publish, settle what no journal knows."""
        if self._is_due("versions", ticks_s, VERSIONS_EVERY_S):
            raised = await versions.publish(self._versions, self._limiter)
            if raised:
                log.warning("metering.versions_raised", count=raised)
        if not self._is_due("sweep", ticks_s, SWEEP_EVERY_S):
            return
        count = await sweep(self._ledger, self._limiter, node=self._node, at=at)
        if count:
            log.warning("metering.reservations_swept", count=count)

    def _is_due(self, duty: str, ticks_s: float, every_s: float) -> bool:
        if ticks_s < self._due_s.get(duty, 0.0):
            return False
        self._due_s[duty] = ticks_s + every_s
        return True

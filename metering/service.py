"""The loop: tail -> journal -> cost -> one transaction -> Redis; after a failure, from Postgres's marks."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import UUID

import structlog
from attrs import define

from authz.errors import LimiterUnavailable, StoreUnavailable
from authz.limiter.limiter import Limiter
from metering.connection import RowsRefusedError
from metering.figure_store import FigureStore
from metering.journal import refused, understand
from metering.journal_store import JournalStore
from metering.ledger_store import LedgerStore
from metering.progress_store import ProgressStore
from metering.publish import Publisher
from metering.replay import replay
from metering.settle import Batch, MarkMovedError, Settlement
from metering.tail import Tail
from metering.upkeep import Upkeep, beside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metering.journal import Page
    from metering.metrics import Metrics
    from metering.surroundings import Surroundings
    from metering.tail import Chunk

log: Final = structlog.get_logger()

POLL_MIN_S: Final = 0.002
POLL_MAX_S: Final = 0.030

GATHER_S: Final = 0.050
"""How long lines may gather once all before them are committed: a batch costs as much as 20 lines of it.

Slots are free before that, by the next Ask; what a request held is given back so much later.
"""

BEAT_S: Final = 1.0
"""How often an idle journal's end is committed and vouched for."""

REPLAY_EVERY_S: Final = 5.0

RETRY_S: Final = 1.0

BEGUN_S: Final = 0.05
"""How often to look for a journal that has not begun: a new Caddy's first requests wait for us."""

NO_JOURNAL: Final = timedelta(days=365)
"""How far behind metering says that it is while the journal is not at its path."""


@define
class Metering:
    """One run of the loop, from connecting to Postgres until anything fails."""

    _node: UUID
    _tail: Tail
    _settlement: Settlement
    _publisher: Publisher
    _journal: JournalStore
    _limiter: Limiter
    _metrics: Metrics
    _clock: Callable[[], datetime]
    _ticks: Callable[[], float]
    _eof_at: datetime | None
    _next_beat: float = 0.0
    _next_replay: float = 0.0
    _asked_at: datetime | None = None
    _is_limiter_away: bool = False
    _is_first_end: bool = True
    _was_missing: bool = False
    has_caught_up: bool = False
    """Whether the last lines that were read are the journal's last."""

    @classmethod
    async def begin(
        cls, node: UUID, around: Surroundings, *, ledger: LedgerStore, limiter: Limiter
    ) -> Metering:
        """Take up a node's journal where Postgres says."""
        journal = JournalStore.beside(ledger)
        sequences = {sequence.boot: sequence for sequence in await journal.sequences(node)}
        settlement = Settlement(
            journal,
            ledger,
            FigureStore.beside(ledger),
            ProgressStore.beside(ledger),
            node,
            around.reach,
            around.metrics,
            sequences,
        )
        tail = Tail.resume(around.journal, await journal.marks(node))
        eof_at = await journal.eof_at(node)
        around.metrics.follow(tail, eof_at)
        return cls(
            node=node,
            tail=tail,
            settlement=settlement,
            publisher=Publisher(ledger, limiter, around.reach),
            journal=journal,
            limiter=limiter,
            metrics=around.metrics,
            clock=around.clock,
            ticks=around.ticks,
            eof_at=eof_at,
        )

    async def step(self) -> bool:
        """Commit and publish the next lines; False if there was nothing to read."""
        await self._beat()
        chunk = self._tail.read()
        self.has_caught_up = chunk is None or chunk.is_end
        if chunk is None:
            return False
        eof_at = self._asked_at if chunk.is_end else None
        if chunk.is_empty and eof_at is None:
            return not chunk.is_end
        with self._metrics.settle_seconds.time():
            await self._settle(chunk, eof_at)
        if eof_at is not None:
            await self._reached_end(eof_at)
        return bool(chunk.lines) or not chunk.is_end

    def finished(self) -> list[Path]:
        """Rotated files that were read to their end, oldest first."""
        return self._tail.finished()

    def close(self) -> None:
        """Let go of the journal."""
        self._tail.close()

    async def _settle(self, chunk: Chunk, eof_at: datetime | None) -> None:
        try:
            read = understand(chunk.lines)
            page = await self._settlement.without_too_old(chunk.lines, read, self._clock())
            await self._commit(chunk, page, eof_at)
        except RowsRefusedError as error:
            log.warning("metering.rows_refused", reason=str(error), lines=len(chunk.lines))
            if not chunk.lines:
                raise
            if len(chunk.lines) == 1:
                await self._commit(chunk, refused(chunk.lines[0]), eof_at)
                return
            first, second = chunk.halves()
            await self._settle(first, None)
            await self._settle(second, eof_at)

    async def _commit(self, chunk: Chunk, page: Page, eof_at: datetime | None) -> None:
        batch = Batch(page, self._clock(), chunk.before, chunk.after, eof_at)
        publications = await self._settlement.settle(batch)
        if page.dead:
            first = page.dead[0]
            log.warning(
                "metering.lines_rejected",
                lines=len(page.dead),
                reason=first.reason,
                name=chunk.before.name,
                position=first.position,
            )
        if self._is_limiter_away:
            return  # it stays in the outbox, from which all is published once Redis is back
        try:
            await self._publisher.publish(publications)
        except LimiterUnavailable as error:
            self._is_limiter_away = True
            log.warning("metering.publishing_failed", reason=str(error))

    async def _beat(self) -> None:
        """Once in a while: ask Redis's clock before the journal is read to its end."""
        now = self._ticks()
        if now < self._next_beat:
            return
        self._next_beat = now + BEAT_S
        if now >= self._next_replay:
            self._next_replay = now + REPLAY_EVERY_S
            # In the loop: only one settles a node's lines.
            await replay(self._journal, self._settlement, node=self._node, at=self._clock())
        try:
            moment = await self._limiter.now()
            # The clock is asked before the journal is read, so that an end read after it is no older.
            if self._asked_at is not None or self._tail.is_missing:  # the end has not been reached since
                await self._vouch(moment)
            self._asked_at = self._asked_at or moment
            self._is_limiter_away = False
        except LimiterUnavailable as error:
            if not self._is_limiter_away:
                log.warning("metering.limiter_unavailable", reason=str(error))
            self._is_limiter_away = True

    async def _reached_end(self, eof_at: datetime) -> None:
        self._eof_at = self._metrics.known_until = eof_at
        self._asked_at = None
        # Now every file that there is has been seen once.
        if self._is_first_end:
            self._is_first_end = False
            for mark in self._tail.lost():
                log.error("metering.file_lost", name=mark.name, position=mark.position)
                await self._journal.finish_lost(self._node, mark)
        try:
            await self._vouch(eof_at)
        except LimiterUnavailable as error:
            self._is_limiter_away = True
            log.warning("metering.limiter_unavailable", reason=str(error))

    async def _vouch(self, now: datetime) -> None:
        """Vouch with the age of the last committed end; a journal never read to one is not vouched for.

        Nor is one that is not at its path: what runs meanwhile is unknown.
        """
        if self._eof_at is not None:
            is_missing = self._tail.is_missing
            if is_missing and not self._was_missing:
                log.error("metering.journal_missing", node=self._node)
            self._was_missing = is_missing
            lag = NO_JOURNAL if is_missing else max(now - self._eof_at, timedelta())
            await self._limiter.vouch(self._node, lag_ms=lag // timedelta(milliseconds=1))


async def run(around: Surroundings) -> NoReturn:
    """Follow the journal until cancelled; nothing that Postgres or Redis does ends this."""
    limiter = Limiter(around.redis_url)
    await limiter.start()
    try:
        while True:
            try:
                await _live(around, limiter)
            except MarkMovedError as error:
                log.info("metering.stood_back", reason=str(error))
            except (StoreUnavailable, RowsRefusedError) as error:
                log.warning("metering.store_unavailable", reason=str(error))
            except OSError as error:
                log.warning("metering.journal_unreadable", reason=str(error))
            await asyncio.sleep(RETRY_S * (0.5 + around.jitter()))
    finally:
        await limiter.close()


async def _live(around: Surroundings, limiter: Limiter) -> None:
    while (node := node_of(around.journal)) is None:
        await asyncio.sleep(BEGUN_S)
    async with contextlib.AsyncExitStack() as stack:
        ledger = await LedgerStore.connect(around.database_url)
        stack.push_async_callback(ledger.close)
        metering = await Metering.begin(node, around, ledger=ledger, limiter=limiter)
        stack.callback(metering.close)
        log.info("metering.journal_opened", node=str(node), journal=str(around.journal))
        begin = partial(Upkeep, node, around, limiter, metering.finished)
        await stack.enter_async_context(beside(begin, around.database_url))
        await _follow(metering)


async def _follow(metering: Metering) -> NoReturn:
    pause_s = POLL_MIN_S
    while True:
        if await metering.step():
            pause_s = POLL_MIN_S
            if metering.has_caught_up:
                await asyncio.sleep(GATHER_S)
            continue
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, POLL_MAX_S)


def node_of(journal: Path) -> UUID | None:
    """Read the id that Caddy keeps beside its journal; None until it has started once."""
    try:
        return UUID(journal.with_name("node").read_text(encoding="ascii").strip())
    except (FileNotFoundError, ValueError):
        return None

"""The slow duties beside the loop that reads and vouches: catch-up, versions, sweeps, retention.

They have connections of their own. A duty that fails is logged, counted and repeated, later after each
failure; none of them ever stops the loop or another duty.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import structlog
from attrs import define, field

from authz import versions
from authz.store import METERING_ROLE
from authz.store import Store as Versions
from authz.supervise import failure_of
from metering.journal_store import JournalStore
from metering.ledger_store import LedgerStore
from metering.orphans import sweep
from metering.prompts import PromptStore
from metering.publish import Publisher
from metering.retention import Retention, keep_journal, prepare_days

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path
    from uuid import UUID

    from authz.limiter.limiter import Limiter
    from metering.surroundings import Surroundings

log: Final = structlog.get_logger()

TICK_S: Final = 1.0
CATCH_UP_EVERY_S: Final = 2
VERSIONS_EVERY_S: Final = 5
SWEEP_EVERY_S: Final = 30
RETENTION_EVERY_S: Final = 3600
PROMPTS_EVERY_S: Final = 1
EXPIRY_EVERY_S: Final = 60

BACKOFF_MAX_S: Final = 300


@define
class _Turn:
    """The time at which a duty is due, and how often it has failed since it last succeeded."""

    due_s: float = 0.0
    failures: int = 0


@define
class Upkeep:
    """Does what is due, one duty after the other; repeating a duty changes nothing."""

    _node: UUID
    _around: Surroundings
    _limiter: Limiter
    _finished: Callable[[], Iterable[Path]]
    _ledger: LedgerStore
    _versions: Versions
    _turns: dict[str, _Turn] = field(factory=dict)

    async def round(self) -> None:
        """Do once what is due."""
        await self._attempt("versions", VERSIONS_EVERY_S, self._publish_versions)
        await self._attempt("sweep", SWEEP_EVERY_S, self._sweep)
        await self._attempt("catch_up", CATCH_UP_EVERY_S, self._catch_up)
        await self._attempt("journal", RETENTION_EVERY_S, self._keep_journal)
        await self._attempt("ledger", RETENTION_EVERY_S, self._keep_ledger)
        await self._attempt("prompts", PROMPTS_EVERY_S, self._take_prompts)
        await self._attempt("expiry", EXPIRY_EVERY_S, self._expire_prompts)
        await self._attempt("people", EXPIRY_EVERY_S, self._forget_people)

    @property
    def is_cut_off(self) -> bool:
        """Return whether the connection to Postgres is lost."""
        return self._ledger.is_closed

    async def _attempt(self, duty: str, every_s: float, run: Callable[[], Awaitable[None]]) -> None:
        turn = self._turns.setdefault(duty, _Turn())
        if self._around.ticks() < turn.due_s:
            return
        error = await failure_of(run())
        if error is None:
            self._around.metrics.duty_done(duty)
            turn.failures, turn.due_s = 0, self._around.ticks() + every_s
            return
        turn.failures += 1
        self._around.metrics.duty_failed(duty)
        log.warning(
            "metering.duty_failed", duty=duty, failures=turn.failures, reason=str(error) or repr(error)
        )
        turn.due_s = self._around.ticks() + min(2.0 ** (turn.failures - 1), BACKOFF_MAX_S)

    async def _publish_versions(self) -> None:
        """Repeat what a command could not publish."""
        raised = await versions.publish(self._versions, self._limiter)
        if raised:
            log.warning("metering.versions_raised", count=raised)

    async def _sweep(self) -> None:
        """Settle what no journal knows."""
        count = await sweep(self._ledger, self._limiter, node=self._node, at=self._around.clock())
        if count:
            log.warning("metering.reservations_swept", count=count)

    async def _catch_up(self) -> None:
        """Publish what the loop could not, and what others have committed."""
        await Publisher(self._ledger, self._limiter, self._around.reach).catch_up()

    async def _keep_journal(self) -> None:
        """Remove files that were read, and forget marks of files that are no longer there."""
        journal = JournalStore.beside(self._ledger)
        days, now = self._around.address_days, self._around.clock()
        since = None if days is None else now - timedelta(days=days)
        await keep_journal(journal, self._node, self._around.journal, self._finished(), since=since)

    async def _keep_ledger(self) -> None:
        """Make the days to come, put past ones under roots, drop those beyond the policy."""
        await prepare_days(self._ledger, self._around.clock().date())
        await self._ledger.close_chain_days()
        moments = (self._around.clock(), await self._limiter.now())
        async with Retention.opened(self._around.database_url) as retention:
            await retention.keep(self._around.ledger_days, moments)

    async def _take_prompts(self) -> None:
        """Store what Caddy has sealed."""
        if self._around.spool is not None:
            await self._around.spool.take(PromptStore.beside(self._ledger), self._around.metrics)

    async def _expire_prompts(self) -> None:
        """Remove the prompts whose time has come, also while metering was off."""
        expired = await PromptStore.beside(self._ledger).expire()
        if expired:
            log.info("metering.prompts_expired", pieces=expired)

    async def _forget_people(self) -> None:
        """Remove the addresses that are kept no longer, and what came late of tenants that are erased."""
        removed = await self._ledger.forget_people(self._around.address_days)
        if removed:
            log.info("metering.people_forgotten", rows=removed)


async def follow(begin: Callable[[LedgerStore, Versions], Upkeep], database_url: str) -> NoReturn:
    """Do the duties until cancelled; a lost connection is made anew."""
    failures = 0

    async def until_cut_off() -> None:
        nonlocal failures
        async with _connected(database_url) as (ledger, names):
            upkeep, failures = begin(ledger, names), 0
            while not upkeep.is_cut_off:
                await upkeep.round()
                await asyncio.sleep(TICK_S)

    while True:
        error = await failure_of(until_cut_off())
        if error is not None:
            log.warning("metering.duties_failed", reason=repr(error))
        failures += 1
        await asyncio.sleep(min(2.0 ** (failures - 1), BACKOFF_MAX_S))


@asynccontextmanager
async def beside(begin: Callable[[LedgerStore, Versions], Upkeep], database_url: str) -> AsyncIterator[None]:
    """Do the duties meanwhile."""
    task = asyncio.create_task(follow(begin, database_url))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])  # raises only if this very task is cancelled, which must not be lost


@asynccontextmanager
async def _connected(database_url: str) -> AsyncIterator[tuple[LedgerStore, Versions]]:
    async with AsyncExitStack() as stack:
        ledger = await LedgerStore.connect(database_url)
        stack.push_async_callback(ledger.close)
        names = Versions(database_url, role=METERING_ROLE, connections=1)
        stack.push_async_callback(names.close)
        yield ledger, names

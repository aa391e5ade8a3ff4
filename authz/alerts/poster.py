"""Post what is due, beside the decisions: one process of all authz at a time, which watches the backends.

It is authz that posts, since authz alone has a way out of its machine's internal network; metering writes
what it finds into Postgres and goes on. Which authz is decided by a lease in Postgres: when its holder ends,
another one takes its place within a minute. An attempt is noted before it is made, so that a crash repeats
it later, under the same id.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import UUID, uuid4

import structlog
from attrs import Factory, define, field

from authz.alerts import watched, webhook
from authz.alerts.book import Book
from authz.alerts.reporter import Reporter
from authz.alerts.watched import Failing
from authz.alerts.webhook import Unposted, Webhook
from authz.backends.tables import Tables
from authz.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from authz.alerts.book import Due
    from authz.backends.inventory import Inventory, Seen
    from authz.settings import Settings
    from authz.store import Store

log = structlog.get_logger()

ROUND_S: Final = 5.0
AT_ONCE: Final = 20
"""Posts of a round."""

FIRST_RETRY_S: Final = 15.0
"""Longer than a post takes: until then no other process tries the same."""
RETRY_MAX_S: Final = 600.0
GIVEN_UP: Final = timedelta(days=1)
"""After which an alert that no receiver has taken is no news any more."""
KEPT: Final = timedelta(days=90)
FORGET_EVERY_S: Final = 3600.0
LOOK_EVERY_S: Final = 60.0
"""How often the files of models are looked at."""


@define
class Poster:
    """What one process of authz does for alerts, one round after the other."""

    _book: Book
    _webhook: Webhook | None
    _seen: Callable[[], Iterable[Seen]]
    _tables: Path
    _now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _ticks: Callable[[], float] = time.monotonic
    _holder: UUID = field(factory=uuid4)
    _failing: Failing = field(factory=Failing)
    _own: Reporter = field(default=Factory(lambda self: self._reporter("authz"), takes_self=True))
    _backends: Reporter | None = None
    _look_at_s: float = float("-inf")
    _forget_at_s: float = float("-inf")

    @classmethod
    def of(cls, settings: Settings, store: Store, inventory: Inventory) -> Poster:
        """Return the one of a process. Raises SettingsError."""
        return cls(Book(store), Webhook.of(settings), lambda: inventory.seen, settings.tables)

    async def run(self) -> NoReturn:
        """Do so until cancelled; what Postgres can't be asked now waits."""
        while True:
            try:
                await self.round()
            except StoreUnavailable as error:
                log.debug("alerts.waiting", error=str(error))
            await asyncio.sleep(ROUND_S)

    async def round(self) -> None:
        """Report what is wrong, then post what is due if this process is the one that does."""
        await self._report_own()
        if not await self._book.lease("authz", self._holder, at=self._now()):
            self._backends = None
            return
        self._backends = self._backends or self._reporter("backends")
        await self._backends.report(watched.away(self._seen()))
        await self._post()
        if self._ticks() >= self._forget_at_s:
            self._forget_at_s = self._ticks() + FORGET_EVERY_S
            await self._book.forget(self._now() - KEPT)

    async def _report_own(self) -> None:
        """Report what any process may find alone."""
        at = self._now()
        failing = [*self._failing.alerts(self._ticks(), at)]
        exceeded = []
        if self._ticks() >= self._look_at_s:
            self._look_at_s = self._ticks() + LOOK_EVERY_S
            exceeded = [*watched.exceeded(await asyncio.to_thread(Tables(self._tables).untabled), at)]
        if failing or exceeded:
            await self._own.report([*failing, *exceeded])

    async def _post(self) -> None:
        if self._webhook is None:
            await self._book.leave_unposted()
            return
        for name, subject in await self._book.give_up(self._now() - GIVEN_UP):
            log.error("alerts.given_up", name=name, subject=subject)
        for due in await self._book.due(self._now(), AT_ONCE):
            # Renewed before each post, so that no other process begins while one is under way.
            if not await self._book.lease("authz", self._holder, at=self._now()):
                return
            if not await self._try(due, self._webhook):
                return  # the others would wait as long for the same receiver

    async def _try(self, due: Due, receiver: Webhook) -> bool:
        at = self._now()
        wait_s = min(FIRST_RETRY_S * 2.0 ** min(due.attempts, 10), RETRY_MAX_S)
        if not await self._book.claim(due, at=at, next_at=at + timedelta(seconds=wait_s)):
            return True
        try:
            await receiver.post(webhook.body(due))
        except Unposted as error:
            log.warning(
                "alerts.unposted", name=due.name, alert=str(due.id), attempts=due.attempts + 1,
                retry_s=wait_s, reason=f"the receiver {error}",
            )  # fmt: skip
            return False
        await self._book.posted(due, at=self._now())
        log.info("alerts.posted", name=due.name, alert=str(due.id), is_recovery=due.is_recovery)
        return True

    def _reporter(self, source: str) -> Reporter:
        return Reporter(self._book, source, self._now, self._ticks)

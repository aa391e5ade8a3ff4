"""A metering process that can be killed at any step, or lose Postgres there."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from authz.errors import StoreUnavailable
from authz.limiter.limiter import Limiter
from authz.store import Store as Versions
from metering.ledger_store import LedgerStore
from metering.service import Metering
from metering.settle import MarkMovedError
from metering.surroundings import Surroundings
from metering.upkeep import Upkeep
from tests.metering.writing import START, JournalFile


class Killed(BaseException):
    """The process has ended; nothing catches this."""


@define
class Process:
    """The loop and its duties, a step at a time."""

    journal: JournalFile
    url: str
    versions: Versions
    limiter: Limiter
    tick: Callable[[], float]
    fault: tuple[str, str] | None = None
    metering: Metering | None = None
    duties: Upkeep | None = None
    stores: tuple[LedgerStore, ...] = ()

    def reach(self, step: str) -> None:
        """Fail here if that is due."""
        if self.fault is None or self.fault[0] != step:
            return
        kind, self.fault = self.fault[1], None
        if kind == "kill":
            raise Killed
        for store in self.stores:
            store._connection.terminate()

    async def step(self) -> bool:
        """Go on, from the start after a failure."""
        if self.metering is None or self.duties is None or self.duties.is_cut_off:
            await self.end()
            await self._start()
        assert self.metering is not None
        assert self.duties is not None
        try:
            has_read = await self.metering.step()
            await self.duties.round()
        except (Killed, StoreUnavailable, MarkMovedError):
            await self.end()
            return True
        return has_read or self.duties.is_cut_off

    async def end(self) -> None:
        """End the process, as a kill does."""
        if self.metering is not None:
            self.metering.close()
        for store in self.stores:
            await store.close()
        self.metering, self.duties, self.stores = None, None, ()

    async def _start(self) -> None:
        around = Surroundings(
            self.journal.path, self.url, "", reach=self.reach, clock=lambda: START, ticks=self.tick
        )
        self.stores = await LedgerStore.connect(self.url), await LedgerStore.connect(self.url)
        loop, beside = self.stores
        node = self.journal.node
        self.metering = await Metering.begin(node, around, ledger=loop, limiter=self.limiter)
        self.duties = Upkeep(node, around, self.limiter, self.metering.finished, beside, self.versions)

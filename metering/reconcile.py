"""B3, looked at every minute: the ledger, the windows and Redis's counters say the same, or are repaired.

Each book is repaired from the one before it. Windows that lack tokens of the ledger are raised; one
that has too many stays, and is alarmed: it refuses too much, and only a person can find out why. Redis
takes over what the windows say, under a version above its own.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog
from attrs import define, evolve, field

from metering.metrics import LEDGER_WINDOWS, WINDOWS_REDIS

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date

    from authz.limiter.limiter import Limiter
    from authz.types import Total
    from metering.books import Books
    from metering.metrics import Metrics
    from metering.rows import Reckoned

log: Final = structlog.get_logger()

TENANTS_AT_ONCE: Final = 100
TOTALS_AT_ONCE: Final = 500
SPENT_S: Final = 1.0
"""How long one round goes on to a next tenant; the next round goes on from there."""

_START: Final = UUID(int=0)


@define
class Reconciler:
    """Walks through the tenants, a round of bounded work at a time; begins again after the last."""

    _books: Books
    _limiter: Limiter
    _metrics: Metrics
    _ticks: Callable[[], float]
    _ledger_days: int | None = None
    _after: UUID = _START
    _found: Counter[str] = field(factory=Counter)

    async def round(self, today: date) -> None:
        """Look at the next tenants, until all have been looked at or the time is spent."""
        until = self._ticks() + SPENT_S
        while tenants := await self._books.tenants_after(self._after, TENANTS_AT_ONCE):
            for tenant in tenants:
                async with self._limiter.beside_others():
                    await self._look_at(tenant, today)
                self._after = tenant
                if self._ticks() >= until:
                    return
        self._finish()

    def _finish(self) -> None:
        self._metrics.drifted(self._found)
        self._found, self._after = Counter(), _START

    async def _look_at(self, tenant: UUID, today: date) -> None:
        first, last = self._days(today)
        drifted = [each for each in await self._books.reckon(tenant, first, last) if _differs(each)]
        if drifted:
            self._tell(tenant, drifted)
            await self._raise(tenant, first, last)
        await self._compare(tenant, first, last)

    def _days(self, today: date) -> tuple[date, date]:
        """List the days that are current somewhere on Earth, and yesterday's, if the ledger has it all."""
        day = timedelta(days=1)
        is_kept = self._ledger_days is None or self._ledger_days > 1
        return today - day if is_kept else today, today + day

    def _tell(self, tenant: UUID, drifted: list[Reckoned]) -> None:
        for each in drifted:
            self._found[LEDGER_WINDOWS] += abs(each.tokens - each.total.used)
            log.error(
                "metering.window_drifted",
                tenant=str(tenant),
                scope=str(each.total.scope),
                period=each.total.period,
                start=each.total.start.isoformat(),
                used=each.total.used,
                reckoned=each.tokens,
            )

    async def _raise(self, tenant: UUID, first: date, last: date) -> None:
        """Raise days, then months to the sum of those, then totals."""
        async with self._books.transaction():
            await self._books.lock_repairs(tenant)
            await self._books.lock_windows(tenant, first)
            for period in ("day", "month", "total"):
                for each in await self._books.reckon(tenant, first, last):
                    if each.total.period == period and each.tokens > each.total.used:
                        await self._books.raise_window(tenant, each)

    async def _compare(self, tenant: UUID, first: date, last: date) -> None:
        """Judge only what has not moved while Redis was asked: all of it had been published before."""
        before = await self._books.published_totals(tenant, first, last)
        differing: list[tuple[Total, Total]] = []
        for at in range(0, len(before), TOTALS_AT_ONCE):
            totals = before[at : at + TOTALS_AT_ONCE]
            believed = await self._limiter.totals(tenant, totals)
            if believed is None:
                return  # after a loss of Redis a rebuild is on its way
            differing += [pair for pair in zip(totals, believed, strict=True) if pair[0] != pair[1]]
        if not differing:
            return
        settled = set(await self._books.published_totals(tenant, first, last))
        await self._republish(tenant, first, [pair for pair in differing if pair[0] in settled])

    async def _republish(self, tenant: UUID, first: date, differing: list[tuple[Total, Total]]) -> None:
        if not differing:
            return
        tokens = sum(abs(total.used - believed.used) for total, believed in differing)
        self._found[WINDOWS_REDIS] += tokens
        log.error("metering.counters_drifted", tenant=str(tenant), windows=len(differing), tokens=tokens)
        async with self._books.transaction():
            await self._books.lock_windows(tenant, first)
            outbid = await self._books.outbid(
                evolve(total, version=max(total.version, believed.version)) for total, believed in differing
            )
        await self._limiter.settle(tenant, (), outbid)


def _differs(reckoned: Reckoned) -> bool:
    return reckoned.total.used != reckoned.tokens

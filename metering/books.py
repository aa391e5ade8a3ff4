"""How the books in Postgres stand, read beside the loop over a connection of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

import sql
from authz.types import Total
from metering.budgets import BudgetUse
from metering.connection import Connection
from metering.rows import Reckoned, Tally

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime
    from uuid import UUID

    import asyncpg


@define
class Books(Connection):
    """Every method raises StoreUnavailable; those that write raise RowsRefusedError too."""

    _queries: ClassVar[Any] = sql.load("books")

    async def stay_serial(self) -> None:
        """Take no more than one of Postgres's processes away from settlement."""
        await self._do("stay_serial")

    async def tally(self, node: UUID | None) -> Tally:
        """Count a node's open requests, dead letters and lost lines."""
        (row,) = await self._rows("tally", node=node)
        return Tally(*row)

    async def budgets_used(self, at: datetime, percent: float) -> list[BudgetUse]:
        """Return the budgets of which so much is used, of what is not disabled."""
        return [BudgetUse(*row) for row in await self._rows("budgets_used", at=at, percent=percent)]

    async def tenants_after(self, tenant: UUID, count: int) -> list[UUID]:
        """Return the next tenants in the order of their ids."""
        return [row["id"] for row in await self._rows("tenants_after", tenant=tenant, count=count)]

    async def reckon(self, tenant: UUID, first: date, last: date) -> list[Reckoned]:
        """Compare a tenant's days from first to last with the ledger's sums; months and totals too."""
        rows = await self._rows("reckon", tenant=tenant, first=first, last=last)
        return [Reckoned(_total(row), row["tokens"]) for row in rows]

    async def lock_repairs(self, tenant: UUID) -> None:
        """Keep every other process from repairing a tenant's windows until the transaction ends."""
        await self._one("lock_repairs", tenant=tenant)

    async def lock_windows(self, tenant: UUID, first: date) -> None:
        """Lock a tenant's current windows until the transaction ends, in the order of settlement."""
        await self._rows("lock_windows", tenant=tenant, first=first)

    async def published_totals(self, tenant: UUID, first: date, last: date) -> list[Total]:
        """Return a tenant's current windows if Redis knows all that is in them; else none."""
        rows = await self._rows("published_totals", tenant=tenant, first=first, last=last)
        return [_total(row) for row in rows]

    async def raise_window(self, tenant: UUID, reckoned: Reckoned) -> None:
        """Raise a window to the sum of what it is made of."""
        total = reckoned.total
        await self._do(
            "raise_window",
            tenant=tenant,
            scope=total.scope,
            period=total.period,
            start=total.start,
            missing=reckoned.tokens - total.used,
        )

    async def outbid(self, totals: Iterable[Total]) -> list[Total]:
        """Give windows a version above these, without changing what was used."""
        listed = list(totals)
        rows = await self._rows(
            "outbid",
            scopes=[total.scope for total in listed],
            periods=[total.period for total in listed],
            starts=[total.start for total in listed],
            versions=[total.version for total in listed],
        )
        return [_total(row) for row in rows]


def _total(row: asyncpg.Record) -> Total:
    return Total(row["scope_id"], row["period"], row["start"], row["used"], row["version"])

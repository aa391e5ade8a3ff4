"""Sums and counts that settlement keeps beside the ledger, in the same transaction."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from attrs import define

from metering.connection import Connection
from metering.refusals import KEPT_PER_MINUTE

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date
    from uuid import UUID

    from metering.rows import KeyMinute, Refused, Use


@define
class Tallies(Connection):
    """Every method raises StoreUnavailable; those that write raise RowsRefusedError too."""

    async def add_uses(self, uses: Collection[Use]) -> None:
        """Add to the sums by day, key and model."""
        if uses:
            await self._do("add_uses", rows=list(uses))

    async def kept_refusals(self, pairs: Collection[KeyMinute]) -> dict[KeyMinute, set[UUID]]:
        """The denied requests that the ledger has of each key and minute, as many as are kept."""
        if not pairs:
            return {}
        keys, minutes = zip(*sorted(pairs), strict=True)
        kept: defaultdict[KeyMinute, set[UUID]] = defaultdict(set)
        for row in await self._rows("kept_refusals", keys=keys, minutes=minutes, most=KEPT_PER_MINUTE):
            kept[row["key_id"], row["minute"]].add(row["request_id"])
        return kept

    async def add_refusals(self, refused: Collection[Refused]) -> None:
        """Add to the counts of refusals."""
        if refused:
            await self._do("add_refusals", rows=list(refused))

    async def forget_refusals(self, before: date) -> None:
        """Forget the counts of refusals before a day."""
        await self._do("forget_refusals", before=before)

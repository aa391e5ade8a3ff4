"""The figures in Postgres by which unreported tokens are counted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from attrs import define, field

import sql
from metering.connection import Connection
from metering.figures import Figures
from metering.learn import ratios

if TYPE_CHECKING:
    from collections.abc import Collection
    from collections.abc import Sequence as Many

    from metering.figures import ModelOwner, Ratios

LEAST_TENANTS: Final = 3
"""A median over fewer is one tenant's to move."""

MEDIANS_FOR: Final = timedelta(seconds=60)
"""How long a median is taken again: it is read from the figures of every tenant."""


@define
class FigureStore(Connection):
    """Every method raises StoreUnavailable; those that write raise RowsRefusedError too."""

    _queries: ClassVar[Any] = sql.load("figures")

    _medians: dict[str, tuple[datetime, dict[str, float]]] = field(factory=dict)

    async def ratios(self, wanted: Collection[ModelOwner], *, at: datetime) -> dict[ModelOwner, Ratios]:
        """Return the figures that count for each model and key now."""
        if not wanted:
            return {}
        models = [each.model for each in wanted]
        scopes = [each.owner.key for each in wanted] + [each.owner.tenant for each in wanted]
        found = {
            (row["model"], row["scope_id"]): Figures(*row)
            for row in await self._rows("figures", models=models * 2, scopes=scopes)
        }
        medians = await self._known_medians(set(models), at)
        return {
            each: ratios(
                medians[each.model],
                found.get((each.model, each.owner.tenant)),
                found.get((each.model, each.owner.key)),
            )
            for each in wanted
        }

    async def _known_medians(self, models: set[str], at: datetime) -> dict[str, dict[str, float]]:
        old = [model for model in models if model not in self._medians or self._medians[model][0] <= at]
        if old:
            rows = {
                row["model"]: {name: value for name, value in row.items() if value is not None}
                for row in await self._rows("medians", models=sorted(old), tenants=LEAST_TENANTS)
            }
            self._medians |= {model: (at + MEDIANS_FOR, rows.get(model, {})) for model in old}
        return {model: self._medians[model][1] for model in models}

    async def learn(self, figures: Many[Figures]) -> None:
        """Add to the sums of keys and tenants."""
        if not figures:
            return
        await self._do(
            "learn",
            models=[each.model for each in figures],
            scopes=[each.scope_id for each in figures],
            tenants=[each.tenant_id for each in figures],
            answers=[each.answers for each in figures],
            sums=["{" + ",".join(map(repr, map(float, each[4:]))) + "}" for each in figures],
        )

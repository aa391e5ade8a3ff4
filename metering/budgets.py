"""Budgets of which little is left: what a person may want to know before clients are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from datetime import date

PERCENTS: Final = (80, 100)
"""What is worth knowing, lowest first."""


@frozen
class BudgetUse:
    """A budget of a tenant, or of one of its keys, and what is used of it in its present window."""

    tenant: str
    key: str | None
    period: str
    start: date
    used: int
    budget: int

    @property
    def percent(self) -> int:
        """Return the part that is used, rounded: the last tokens of a budget fit few requests."""
        return round(100 * self.used / self.budget)

    @property
    def reached(self) -> int:
        """Return the highest of PERCENTS that is reached; 0 if none is."""
        return max((each for each in PERCENTS if self.percent >= each), default=0)

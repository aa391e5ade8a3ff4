"""Days and months in a tenant's time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from authz.decision.calendar import at
from authz.types import Windows


@pytest.mark.parametrize(
    ("moment", "timezone", "day", "month"),
    [
        ("2026-11-25T23:59:59+00:00", "UTC", "2026-11-25", "2026-11"),
        ("2026-11-25T23:59:59+00:00", "Europe/Berlin", "2026-11-26", "2026-11"),
        ("2026-12-01T02:00:00+00:00", "America/New_York", "2026-11-30", "2026-11"),
    ],
)
def test_windows(moment: str, timezone: str, day: str, month: str) -> None:
    """A request belongs to the day and month of its tenant's calendar."""
    assert Windows(day, month) == at(datetime.fromisoformat(moment), timezone).windows


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-25", 24)])
def test_days_of_other_lengths(day: str, hours: int) -> None:
    """On the days of a clock change a day has 23 or 25 hours, and nothing falls between two days."""
    calendar = at(datetime.fromisoformat(f"{day}T12:00:00+00:00"), "Europe/Berlin")
    assert timedelta(hours=hours) == calendar.valid_until - calendar.valid_from
    assert day != at(calendar.valid_until, "Europe/Berlin").windows.day
    assert day == at(calendar.valid_from, "Europe/Berlin").windows.day
    assert UTC == calendar.valid_from.tzinfo

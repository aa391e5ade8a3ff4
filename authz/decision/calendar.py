"""Find the day and the month, in a tenant's time zone, that pay for a request."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import cached_property, lru_cache
from zoneinfo import ZoneInfo

from attrs import frozen

from authz.limiter import wire
from authz.types import Windows


@frozen
class Calendar:
    """The windows that pay for a request admitted in [valid_from, valid_until)."""

    windows: Windows
    valid_from: datetime
    valid_until: datetime
    next_month: datetime

    @cached_property
    def valid_from_us(self) -> int:
        """The beginning, in microseconds since 1970."""
        return wire.us(self.valid_from)

    @cached_property
    def valid_until_us(self) -> int:
        """The end, in microseconds since 1970."""
        return wire.us(self.valid_until)


def at(moment: datetime, timezone: str) -> Calendar:
    """Return the calendar of a moment; days may have 23 or 25 hours."""
    zone = _zone(timezone)
    return _of_day(moment.astimezone(zone).date().toordinal(), timezone)


@lru_cache(maxsize=1024)
def _of_day(ordinal: int, timezone: str) -> Calendar:
    day = datetime.fromordinal(ordinal).date()
    next_month = (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    start, end, month_end = (
        datetime.combine(date, time.min, _zone(timezone)).astimezone(UTC)
        for date in (day, day + timedelta(days=1), next_month)
    )
    return Calendar(Windows(day.isoformat(), day.isoformat()[:7]), start, end, month_end)


@lru_cache(maxsize=1024)
def _zone(timezone: str) -> ZoneInfo:
    return ZoneInfo(timezone)

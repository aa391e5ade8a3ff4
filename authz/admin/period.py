"""A period of the bill: from a date or a moment until another, where a date is a day of each tenant's."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from attrs import frozen

import sql
from authz.admin.limit_options import moment
from authz.errors import CommandError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
END: Final = datetime(9999, 1, 1, tzinfo=UTC)

CUT_DAY: Final = timedelta(hours=26)
"""The longest part of a day, 25 hours where clocks are set back, and what clocks may differ."""

_queries = sql.load("usage")


@frozen
class Period:
    """From since, included, until until, not included; a date begins at each tenant's own midnight."""

    since: date | datetime | None = None
    until: date | datetime | None = None

    @property
    def days(self) -> tuple[date | None, date | None]:
        """Return the days of tenants between which the period lies, where an end is a day."""
        since, until = (None if isinstance(end, datetime) else end for end in (self.since, self.until))
        return since, until

    @property
    def moments(self) -> tuple[datetime | None, datetime | None]:
        """Return the moments between which its requests began, a day further than its days for any zone."""
        first, last = self.days
        since = self.since if isinstance(self.since, datetime) else None
        until = self.until if isinstance(self.until, datetime) else None
        if first is not None:
            since = _midnight(first - timedelta(days=1), "UTC")
        if last is not None:
            until = _midnight(last + timedelta(days=1), "UTC")
        return since, until

    @property
    def around(self) -> tuple[datetime, datetime]:
        """Return the moments between which all ids lie whose days or moments are of the period."""
        since, until = self.moments
        return BEGINNING if since is None else since - CUT_DAY, END if until is None else until + CUT_DAY

    async def refuse_dropped(self, connection: Any) -> None:
        """Raise CommandError if an end cuts a day whose ledger is not kept any more."""
        for end, name in ((self.since, "since"), (self.until, "until")):
            if not isinstance(end, datetime):
                continue
            day = end.astimezone(UTC).date()
            if end != _midnight(day, "UTC") and await _queries.is_day_dropped(connection, day=day):
                sentence = f"The ledger of {day} is not kept any more: give a whole day as --{name}."
                raise CommandError(sentence)

    def columns(self, zones: Iterable[tuple[UUID, str]]) -> dict[str, Any]:
        """Return the parameters of the query `sums` for tenants in their time zones."""
        listed = list(zones)
        is_cut_first, is_cut_last = (isinstance(end, datetime) for end in (self.since, self.until))
        since = self.since if isinstance(self.since, datetime) else BEGINNING
        until = self.until if isinstance(self.until, datetime) else END
        return {
            "tenants": [tenant for tenant, _ in listed],
            "whole_from": [self._whole_from(zone) for _, zone in listed],
            "whole_to": [self._whole_to(zone) for _, zone in listed],
            "since": since,
            "until": until,
            "head_until": since + CUT_DAY if is_cut_first else BEGINNING,
            "tail_from": until - CUT_DAY if is_cut_last else END,
        }

    def _whole_from(self, zone: str) -> date:
        if not isinstance(self.since, datetime):
            return self.since or date.min
        day = self.since.astimezone(ZoneInfo(zone)).date()
        return day if self.since == _midnight(day, zone) else day + timedelta(days=1)

    def _whole_to(self, zone: str) -> date:
        if not isinstance(self.until, datetime):
            return self.until or date.max
        return self.until.astimezone(ZoneInfo(zone)).date()


def parse(since: str | None, until: str | None, now: datetime) -> Period:
    """Read --since and --until: dates, times, or spans that reach back from now. Raises UsageError."""
    first, last = _end(since, now), _end(until, now)
    if first is not None and type(first) is type(last) and first >= last:
        raise UsageError(f"--until {until} is not after --since {since}: give a later end.")
    return Period(first, last)


def _end(text: str | None, now: datetime) -> date | datetime | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return moment(text, now, is_past=True)


def _midnight(day: date, zone: str) -> datetime:
    return datetime.combine(day, time.min, ZoneInfo(zone))

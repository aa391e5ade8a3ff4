"""Days of the ledger: a request's id, a UUIDv7, begins with its milliseconds and so names its partition.

A query about ids of several days is asked once for each day: so it touches those partitions and no others.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable


@frozen
class DayOfIds:
    """Some ids of one day, in UTC, and the range of all ids of that day."""

    ids: list[UUID]
    first: UUID
    until: UUID


def milliseconds_of(uuid7: UUID) -> int:
    """Return the unix time, in milliseconds, that a UUIDv7 was made at."""
    return uuid7.int >> 80


def moment_of(uuid7: UUID) -> datetime:
    """Return when a UUIDv7 was made: a request begun, or a Caddy process started."""
    return datetime.fromtimestamp(milliseconds_of(uuid7) / 1000, UTC)


def day_of(request_id: UUID) -> date:
    """Return the day, in UTC, that an id is of."""
    return moment_of(request_id).date()


def floor(day: date) -> UUID:
    """Return the lowest id of a day."""
    midnight = datetime.combine(day, time(), UTC)
    return UUID(int=int(midnight.timestamp() * 1000) << 80)


def by_day(ids: Iterable[UUID]) -> list[DayOfIds]:
    """Group ids by their day, in the order of the days."""
    days: defaultdict[date, list[UUID]] = defaultdict(list)
    for request_id in ids:
        days[day_of(request_id)].append(request_id)
    return [DayOfIds(days[day], floor(day), floor(day + timedelta(days=1))) for day in sorted(days)]

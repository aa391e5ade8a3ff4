"""What breaks when: the same seed, the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from random import Random

from attrs import evolve, frozen

SPACING_S = 8.0
"""Between two deaths of one child: its supervisor gives up at five within 30 s."""

SPREAD_S = 1.9
FULL_S = 5.0
"""How long the disk stays full at least."""


class Blow(StrEnum):
    """What is done to a running stack."""

    METERING = "metering killed"
    POSTGRES = "Postgres restarted"
    REDIS = "Redis flushed"
    AUTHZ = "authz killed"
    CADDY = "Caddy killed"
    FULL = "disk filled"
    FREE = "disk freed"


@frozen(order=True)
class Event:
    """One blow, so many seconds after the load has begun."""

    at_s: float
    blow: Blow


WHOLE: Mapping[Blow, int] = {
    Blow.METERING: 50,
    Blow.POSTGRES: 3,
    Blow.REDIS: 3,
    Blow.AUTHZ: 5,
    Blow.CADDY: 5,
    Blow.FULL: 1,
}


def dice(seed: int, name: str) -> Random:
    """Chance, the same for the same seed, that nobody else draws from."""
    return Random(f"{seed}/{name}")  # noqa: S311 (a test must be repeatable, not unpredictable)


def planned(seed: int, span_s: float, *, blows: Mapping[Blow, int]) -> tuple[Event, ...]:
    """Spread the blows over a span: as many as were wished for, fewer where a child would die too often."""
    chance = dice(seed, "plan")
    events = [event for blow, wished in blows.items() for event in _spread(chance, span_s, blow, wished)]
    return tuple(sorted(_apart(events)))


def _spread(chance: Random, span_s: float, blow: Blow, wished: int) -> Iterator[Event]:
    count = min(wished, int(span_s / SPACING_S))
    slot_s = span_s / max(1, count)
    for number in range(count):
        at_s = slot_s * number + chance.uniform(0, max(SPREAD_S, slot_s - SPACING_S + SPREAD_S))
        yield Event(at_s, blow)
        if blow is Blow.FULL:
            yield Event(at_s + FULL_S, Blow.FREE)


def _apart(events: list[Event]) -> Iterator[Event]:
    """What a full disk keeps Caddy from writing dies with it: then Caddy is killed afterwards instead."""
    freed_s = [event.at_s for event in events if event.blow is Blow.FREE]
    for event in events:
        is_lossy = event.blow is Blow.CADDY
        over_s = [at_s for at_s in freed_s if at_s - FULL_S - 1 <= event.at_s <= at_s + 1]
        yield evolve(event, at_s=over_s[0] + 2) if is_lossy and over_s else event

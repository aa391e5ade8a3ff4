"""The plan of what breaks at which time: the same seed, the same plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from random import Random

from attrs import evolve, frozen

SPACING_S = 8.2
"""Between two deaths of one child: its supervisor gives up at five within 30 s."""

SPREAD_S = 1.0
NEAR_S = 1.5
"""Blows closer than this come together."""


class Blow(StrEnum):
    """The blows to a running stack."""

    METERING = "metering killed"
    POSTGRES = "Postgres restarted"
    REDIS = "Redis flushed"
    FORGET = "Redis killed"
    AUTHZ = "authz killed"
    CADDY = "Caddy killed"
    HOLD = "process stopped"
    RELEASE = "process continued"
    FULL = "disk filled"
    FREE = "disk freed"
    AGE = "days and marks grown old"


FOLLOWED_BY = {
    Blow.HOLD: ((2.5, Blow.RELEASE),),
    Blow.FULL: ((2.5, Blow.CADDY), (5.0, Blow.FREE)),
}
"""The sequels of a blow, in seconds after it: a Caddy dies, and its successor starts, on a full disk."""


@frozen(order=True)
class Event:
    """One blow, so many seconds after the load has begun."""

    at_s: float
    blow: Blow


WHOLE: Mapping[Blow, int] = {
    Blow.METERING: 50,
    Blow.POSTGRES: 3,
    Blow.REDIS: 3,
    Blow.FORGET: 1,
    Blow.AUTHZ: 5,
    Blow.CADDY: 4,
    Blow.HOLD: 3,
    Blow.FULL: 1,
    Blow.AGE: 3,
}


SHORT_S = 26.0
SHORT: Mapping[Blow, int] = {
    Blow.METERING: 3,
    Blow.POSTGRES: 1,
    Blow.AUTHZ: 1,
    Blow.CADDY: 1,
    Blow.HOLD: 1,
    Blow.FULL: 1,
    Blow.REDIS: 1,
    Blow.AGE: 1,
}
"""Every kind of blow, few of each."""


def dice(seed: int, name: str) -> Random:
    """Chance, the same for the same seed, that nothing else draws from."""
    return Random(f"{seed}/{name}")  # noqa: S311 (a test must be repeatable, not unpredictable)


def planned(seed: int, span_s: float, *, blows: Mapping[Blow, int]) -> tuple[Event, ...]:
    """Spread the blows over a span: as many as were wished for, fewer where a child would die too often."""
    chance = dice(seed, "plan")
    events = [event for blow, wished in blows.items() for event in _spread(chance, span_s, blow, wished)]
    return tuple(_together(sorted(events)))


def _spread(chance: Random, span_s: float, blow: Blow, wished: int) -> Iterator[Event]:
    count = min(wished, int(span_s / SPACING_S))
    slot_s = span_s / max(1, count)
    for number in range(count):
        at_s = slot_s * number + chance.uniform(0, max(SPREAD_S, slot_s - SPACING_S + SPREAD_S))
        yield Event(at_s, blow)
        for after_s, next_blow in FOLLOWED_BY.get(blow, ()):
            yield Event(at_s + after_s, next_blow)


def _together(events: list[Event]) -> Iterator[Event]:
    """Blows that come at once are the worst; metering's must keep their distance."""
    last_s = 0.0
    for event in events:
        is_near = event.blow is not Blow.METERING and event.at_s - last_s < NEAR_S
        last_s = last_s if is_near else event.at_s
        yield evolve(event, at_s=last_s)

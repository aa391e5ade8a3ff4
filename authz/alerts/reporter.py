"""From what holds right now to alerts: what is new is raised, what no longer holds has recovered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from attrs import define, field

from authz.alerts.alert import QUEUE_FULL, Alert, hour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from authz.alerts.book import Book, Event

log = structlog.get_logger()


@define
class Reporter:
    """Speaks for one source, of which there is one process at a time; remembers what it has said.

    What it remembers spares Postgres a query; that an event is raised once is Postgres's to know.
    """

    _book: Book
    _source: str
    _now: Callable[[], datetime]
    _ticks: Callable[[], float]
    _open: set[Event] | None = None
    _since_s: dict[Event, float] = field(factory=dict)
    _said: set[tuple[Event, str]] = field(factory=set)

    async def report(self, holding: Iterable[Alert]) -> set[Event]:
        """Report all that holds now; return the events that were raised by this. Raises StoreUnavailable."""
        alerts = {(alert.event, alert.period): alert for alert in holding}
        if self._open is None:
            self._open = await self._book.open_events(self._source)
        states = {event for event, period in alerts if period is None}
        self._since_s = {event: self._since_s.get(event, self._ticks()) for event in states}
        new = [alert for alert in alerts.values() if self._is_new(alert, self._open)]
        raised = await self._raise(new) if new else set()
        self._open |= raised & states
        if recovered := self._open - states:
            await self._book.close(self._source, recovered, at=self._now())
            self._open -= recovered
        happened = {(alert.event, alert.period) for alert in alerts.values() if alert.period is not None}
        self._said = (self._said | {(each.event, each.period) for each in new if each.period}) & happened
        return raised

    def _is_new(self, alert: Alert, known: set[Event]) -> bool:
        if alert.period is not None:
            return (alert.event, alert.period) not in self._said
        held_s = self._ticks() - self._since_s[alert.event]
        return alert.event not in known and held_s >= alert.kind.for_s

    async def _raise(self, alerts: list[Alert]) -> set[Event]:
        at = self._now()
        raised = await self._book.add(self._source, alerts, at=at)
        for name, subject in raised:
            log.warning("alerts.raised", name=name, subject=subject)
        if unqueued := sum(not is_queued for is_queued in raised.values()):
            sentence = f"{unqueued} alerts and perhaps more are not posted, as too many wait already"
            full = Alert(kind=QUEUE_FULL, subject="", summary=sentence, value=unqueued, period=hour(at))
            await self._book.add(self._source, [full], at=at, queued=2**31)
        return set(raised)

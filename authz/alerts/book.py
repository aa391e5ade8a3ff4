"""Alerts in Postgres: each event once in its period, whichever processes find it, and after restarts, too."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID  # noqa: TC003 (the same)

import msgspec
from attrs import frozen

import sql
from authz.alerts.alert import Alert, hour

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from authz.store import Store

MOST_QUEUED: Final = 200
"""Alerts that may wait to be posted; what is raised beyond them is in the list alone."""

LEASE: Final = timedelta(seconds=45)
"""Longer than any round of who holds it; then another process takes its place."""

_queries = sql.load("alerts")

Event = tuple[str, str]


@frozen(kw_only=True)
class _Row:
    """What a post and the list say alike of an alert."""

    name: str
    severity: str
    tenant: str | None
    key: str | None
    node: str | None
    backend: str | None
    value: int
    summary: str
    action: str


@frozen(kw_only=True)
class Due(_Row):
    """What is to be posted: an alert, or that it has recovered."""

    id: UUID
    raised_at: datetime
    recovered_at: datetime | None
    posted_at: datetime | None
    attempts: int

    @property
    def is_recovery(self) -> bool:
        """Return whether the alert itself was posted before."""
        return self.posted_at is not None


@frozen(kw_only=True)
class Listed(_Row):
    """An alert as `alerts list` shows it."""

    id: UUID
    raised: datetime
    recovered: datetime | None
    posted: datetime | None
    is_queued: bool


@frozen
class Book:
    """The alerts; every method raises StoreUnavailable when Postgres can't be asked."""

    _store: Store

    async def add(
        self, source: str, alerts: Iterable[Alert], *, at: datetime, queued: int = MOST_QUEUED
    ) -> dict[Event, bool]:
        """Raise what is not raised yet; return those events, each with whether it will be posted."""
        rows = [_row(alert, at) for alert in alerts]
        async with self._store.connection() as connection:
            found = _queries.raise_alerts(
                connection, source=source, at=at, queued=queued, alerts=msgspec.json.encode(rows).decode()
            )
            return {(row["name"], row["subject"]): row["is_queued"] async for row in found}

    async def close(self, source: str, events: Collection[Event], *, at: datetime) -> None:
        """Note what has recovered of what this source has raised."""
        names, subjects = [event[0] for event in events], [event[1] for event in events]
        async with self._store.connection() as connection:
            await _queries.close_alerts(connection, source=source, at=at, names=names, subjects=subjects)

    async def open_events(self, source: str) -> set[Event]:
        """Return what this source has raised that has not recovered."""
        async with self._store.connection() as connection:
            rows = _queries.open_alerts(connection, source=source)
            return {(row["name"], row["subject"]) async for row in rows}

    async def last_value(self, name: str, subject: str) -> int:
        """Return the value of an event's last alert; 0 if there was none."""
        async with self._store.connection() as connection:
            found: int | None = await _queries.last_value(connection, name=name, subject=subject)
        return found or 0

    async def lease(self, name: str, holder: UUID, *, at: datetime) -> bool:
        """Become, or stay, the one process that does this; False while another one does."""
        async with self._store.connection() as connection:
            found = await _queries.lease(connection, name=name, holder=holder, at=at, until=at + LEASE)
        return found is not None

    async def due(self, at: datetime, count: int) -> list[Due]:
        """Return what is to be posted now, the oldest first."""
        async with self._store.connection() as connection:
            return [Due(**dict(row)) async for row in _queries.due_alerts(connection, at=at, count=count)]

    async def claim(self, due: Due, *, at: datetime, next_at: datetime) -> bool:
        """Count an attempt, and keep every process from the next one until then; False if one was faster."""
        async with self._store.connection() as connection:
            found = await _queries.claim_alert(
                connection, id=due.id, attempts=due.attempts, at=at, next_at=next_at
            )
        return found is not None

    async def posted(self, due: Due, *, at: datetime) -> None:
        """Note that the receiver has it."""
        async with self._store.connection() as connection:
            await _queries.mark_posted(connection, id=due.id, at=at, is_recovery=due.is_recovery)

    async def give_up(self, before: datetime) -> list[Event]:
        """Post no more what has been due since before a moment; return what that was."""
        async with self._store.connection() as connection:
            rows = _queries.give_up(connection, before=before)
            return [(row["name"], row["subject"]) async for row in rows]

    async def leave_unposted(self) -> None:
        """Keep in the list alone what nobody is there to receive; what lasts stays due."""
        async with self._store.connection() as connection:
            await _queries.leave_unposted(connection)

    async def forget(self, before: datetime) -> None:
        """Delete alerts of long ago."""
        async with self._store.connection() as connection:
            await _queries.forget_alerts(connection, before=before)

    async def latest(self, since: datetime, count: int | None = None) -> list[Listed]:
        """Return the newest alerts since a moment, and all that last."""
        async with self._store.connection() as connection:
            rows = _queries.latest_alerts(connection, since=since, count=count)
            return [Listed(**dict(row)) async for row in rows]


def _row(alert: Alert, at: datetime) -> dict[str, Any]:
    return {
        "name": alert.kind.name,
        "subject": alert.subject,
        "period": alert.period or hour(at),
        "is_lasting": alert.period is None,
        "severity": alert.kind.severity,
        "tenant": alert.tenant,
        "key": alert.key,
        "node": alert.node,
        "backend": alert.backend,
        "value": alert.value,
        "summary": alert.summary,
        "action": alert.kind.action,
    }

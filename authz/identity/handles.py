"""Know which public handles belong to keys, so that invented ones are told from them without Postgres.

A key of a known handle is looked up whatever else its address has tried; all other keys share a small
allowance (`sources`). A handle made a moment ago is one of the others, until it is read.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from authz.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from authz.store import Store

log = structlog.get_logger()

READ_EVERY_S: Final = 1.0

AGAIN: Final = timedelta(minutes=1)
"""Handles made this long before the last look are read again: a transaction may commit after a later one."""

WHOLE_EVERY_S: Final = 600.0
"""All are read again: a transaction may take longer, and the clock of Postgres may step back."""

REMEMBERED: Final = 1_000_000
"""Beyond these, about 100 MB, a handle counts as one made a moment ago."""

BEGINNING: Final = datetime.min.replace(tzinfo=UTC)


class Handles:
    """The handles of all secrets; none is ever taken out, as a secret may be refused but never ends."""

    def __init__(self, store: Store, *, now_s: Callable[[], float]) -> None:
        self._store = store
        self._now_s = now_s
        self._known: set[str] = set()

    def __contains__(self, handle: str) -> bool:
        return handle in self._known

    def add(self, handle: str) -> None:
        """Remember a handle that Postgres knows."""
        if len(self._known) < REMEMBERED:
            self._known.add(handle)

    async def run(self) -> None:
        """Read new handles until cancelled; while Postgres is away, the known ones stay known."""
        since, whole_at_s = BEGINNING, self._now_s() + WHOLE_EVERY_S
        while True:
            try:
                since = await self.read(since)
            except StoreUnavailable as error:
                log.debug("authz.handles_unread", error=str(error))
            if self._now_s() >= whole_at_s:
                since, whole_at_s = BEGINNING, self._now_s() + WHOLE_EVERY_S
            await asyncio.sleep(READ_EVERY_S)

    async def read(self, since: datetime) -> datetime:
        """Read the handles made since a moment; return the moment to go on from, by Postgres's clock."""
        first_read_at = None
        async for read_at, handles in self._store.handles(since=since):
            first_read_at = first_read_at or read_at
            for handle in handles:
                self.add(handle)
        return since if first_read_at is None else first_read_at - AGAIN

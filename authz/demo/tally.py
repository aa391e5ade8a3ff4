"""The truth about what this backend was asked and what it produced, for tests to compare with."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from attrs import define, field

from authz.demo.types import Clock

KEPT_BODY_BYTES: Final = 65_536
_KEPT: Final = 10_000
"""Older hits and entries are forgotten: a demo may run for months."""


@define
class Hit:
    """One request as it came in, whatever became of it; the body once it was read."""

    method: str
    target: str
    """Path and query, raw: no byte decoded."""
    headers: list[tuple[str, str]]
    body: str = ""


@define
class Entry:
    """One request's truth; it changes while the request runs."""

    path: str
    started_ms: int
    tag: str = ""
    model: str = ""
    stream: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    """Produced so far: also counts what a client that left never read."""
    cached_tokens: int = 0
    status: int | None = None
    end: str = ""
    """Empty while it runs, then stop length load unload; cancel; refused; or the fault's mode."""
    ended_ms: int | None = None

    @property
    def finished(self) -> bool:
        """Say whether the terminal frame was sent."""
        return self.end in {"stop", "length", "load", "unload"}

    @property
    def cancelled(self) -> bool:
        """Say whether the client left before the end."""
        return self.end == "cancel"


@define
class Tally:
    """Every hit and entry since the last clear, in order, and the requests in flight."""

    clock: Clock
    hits: deque[Hit] = field(factory=lambda: deque(maxlen=_KEPT))
    entries: deque[Entry] = field(factory=lambda: deque(maxlen=_KEPT))
    max_in_flight: int = 0
    _running: list[Entry] = field(factory=list)
    _changed: asyncio.Condition = field(factory=asyncio.Condition)

    @asynccontextmanager
    async def entry(self, path: str) -> AsyncIterator[Entry]:
        """Keep the entry of one request: whoever leaves without an end was cancelled."""
        entry = Entry(path=path, started_ms=_unix_ms(self.clock()))
        self.entries.append(entry)
        self._running.append(entry)
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        await self.notify()
        try:
            yield entry
        finally:
            entry.end = entry.end or "cancel"
            entry.ended_ms = _unix_ms(self.clock())
            await self.notify()

    @property
    def in_flight(self) -> int:
        """The requests that still have something to say: whoever has sent its last bytes has not."""
        self._running = [entry for entry in self._running if not entry.end]
        return len(self._running)

    async def notify(self) -> None:
        """Wake whoever waits for a change of the tally."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, ready: Callable[[], bool], *, timeout_s: float) -> bool:
        """Wait for a state of the tally; False after the timeout."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), timeout_s)
            except TimeoutError:
                return False
        return True

    def clear(self) -> None:
        """Forget all that has ended; what still runs stays to be counted."""
        self.hits.clear()
        running = [entry for entry in self.entries if not entry.end]
        self.entries.clear()
        self.entries.extend(running)
        self.max_in_flight = self.in_flight


def _unix_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)

"""The truth about what this backend was asked and what it produced, for tests to compare with."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from attrs import define, field

KEPT_BODY_BYTES: Final = 65_536


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
    """One metered request's truth; it changes while the request runs."""

    path: str
    tag: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    """Produced so far: also counts what a client that disconnected never read."""
    end: str = ""
    """Empty while it runs, then `stop`, `refused`, or `cancel` where the client disconnected."""
    began_s: float = field(factory=time.monotonic)
    ended_s: float = 0.0

    def finish(self, end: str) -> None:
        """Note how it ended, and when; the first end stays."""
        if not self.end:
            self.end, self.ended_s = end, time.monotonic()


@define
class Tally:
    """Every hit and entry since the last clear, in order, and the requests in flight."""

    hits: list[Hit] = field(factory=list)
    entries: list[Entry] = field(factory=list)
    max_in_flight: int = 0
    _running: list[Entry] = field(factory=list)
    _changed: asyncio.Condition = field(factory=asyncio.Condition)

    @asynccontextmanager
    async def entry(self, path: str) -> AsyncIterator[Entry]:
        """Keep the entry of one request; one that is left without an end was cancelled."""
        entry = Entry(path)
        self.entries.append(entry)
        self._running.append(entry)
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        await self.notify()
        try:
            yield entry
        finally:
            entry.finish("cancel")
            await self.notify()

    @property
    def in_flight(self) -> int:
        """The requests that still have something to say: one that has sent its last bytes has not."""
        self._running = [entry for entry in self._running if not entry.end]
        return len(self._running)

    async def notify(self) -> None:
        """Wake those who wait for a change of the tally."""
        async with self._changed:
            self._changed.notify_all()

    async def until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Wait for a state of the tally, or for the timeout."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(is_ready), timeout_s)
            except TimeoutError:
                return

    def clear(self) -> None:
        """Forget all that has ended; what still runs stays to be counted."""
        self.hits.clear()
        self.entries[:] = [entry for entry in self.entries if not entry.end]
        self.max_in_flight = self.in_flight

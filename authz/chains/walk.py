"""Follow one chain from its beginning, or from the last day of it that is dropped, to its head."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from attrs import define, field

from authz.chains import tree
from authz.chains.links import Day, beginning, day_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from uuid import UUID

    from authz.chains.links import Link


@define
class Walk:
    """What a chain is found to be; fault is the first thing that is wrong with it, where it ends."""

    chain: str
    database: UUID
    closed: list[Day]
    """Its days that the database has put under a root, in order."""
    until: int | None = None
    """The number up to which it is walked for `days`; None is all of it."""
    days: list[Day] = field(factory=list)
    fault: str | None = None
    number: int = 0
    hash: bytes = b""
    at_until: bytes | None = None
    """The hash of the link at `until`; None if there is none, or it is dropped."""
    links: int = 0
    rows: int = 0
    _open: list[bytes] = field(factory=list)
    _day: date | None = None
    _first: int = 0

    async def follow(self, links: AsyncIterator[Link]) -> None:
        """Follow the chain, and stop where it is broken."""
        self.hash = beginning(self.chain, self.database)
        async for link in links:
            if self.links == 0 and link.number > 1:
                self._begin_after_dropped(link.number)
            self.fault = self.fault or self._fault_of(link)
            if self.fault:
                return
            self._take(link)
        if self.links == 0:
            self._drop(self.closed)
        self._end_day()

    def _begin_after_dropped(self, number: int) -> None:
        """Begin at the first link that is kept, after days of which only the roots are."""
        self._drop(day for day in self.closed if day.last < number)

    def _drop(self, days: Iterable[Day]) -> None:
        for day in days:
            if day.first != self.number + 1:
                self.fault = self._missing(day.first)
                return
            self.number, self.hash = day.last, day.hash
            if self.until is None or day.last <= self.until:
                self.days.append(day)
            if day.last == self.until:
                self.at_until = day.hash

    def _fault_of(self, link: Link) -> str | None:
        if link.number != self.number + 1:
            return self._missing(link.number)
        if not link.follows(self.hash):
            return (
                f"Link {link.number} of the chain {self.chain} was altered or moved: its hash does not "
                f"follow from link {self.number} and its rows, of which {next(link.rows(), '-')} is first."
            )
        return None

    def _missing(self, number: int) -> str:
        first, last = self.number + 1, number - 1
        which = f"Link {first} is" if first == last else f"Links {first} to {last} are"
        return f"{which} missing from the chain {self.chain}."

    def _take(self, link: Link) -> None:
        day = self._day_of(link)
        if day != self._day:
            self._end_day()
            self._day, self._first = day, link.number
        self.number, self.hash = link.number, link.hash
        self.links += 1
        self.rows += len(link.leaves) // tree.HASH_BYTES
        self._open.append(link.hash)
        if link.number == self.until:
            self.at_until = link.hash
            self.days.append(self._present())

    def _day_of(self, link: Link) -> date:
        for day in reversed(self.closed):
            if link.number > day.last:
                return day_of(link.at, day.day)
            if link.number >= day.first:
                return day.day
        return day_of(link.at, None)

    def _present(self) -> Day:
        day = self._day or date.min
        return Day(self.chain, day, self._first, self.number, tree.root(self._open), self.hash)

    def _end_day(self) -> None:
        if not self._open or self.fault:
            return
        found = self._present()
        self._open = []
        known = next((day for day in self.closed if day.day == found.day), None)
        if known is not None and known != found:
            self.fault = f"The root of {found.day} in the chain {self.chain} is not that of its links."
        if self.until is None or found.last < self.until:
            self.days.append(found)

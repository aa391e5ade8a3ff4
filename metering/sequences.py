"""Line numbers per Caddy process: a gap that a window of later lines does not close is a lost line."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from metering.journal import Boot, Open, Page, Record

WINDOW: Final = 1000
"""Lines are written out of order by this much at most."""


@frozen
class Sequence:
    """The numbers seen of one boot: all below next, apart from those given up as lost, and ahead."""

    boot: UUID
    next: int = 0
    ahead: tuple[int, ...] = ()
    lost: int = 0

    def advance(self, numbers: Iterable[int]) -> Sequence:
        """Return the sequence after these lines too; a number seen before changes nothing."""
        ahead = sorted({*self.ahead, *(number for number in numbers if number >= self.next)})
        return self._close_up(ahead, given_up_below=ahead[-1] + 1 - WINDOW if ahead else 0)

    def end(self) -> Sequence:
        """Return the sequence when no line of this boot can come any more: what is missing is lost."""
        ahead = list(self.ahead)
        return self._close_up(ahead, given_up_below=ahead[-1] if ahead else 0)

    def _close_up(self, ahead: list[int], given_up_below: int) -> Sequence:
        # Gaps are skipped, never counted through: a number may be anything up to 2^40.
        following, lost, count = self.next, self.lost, 0
        for number in ahead:
            if number > following and following < given_up_below:
                missing_until = min(number, given_up_below)
                lost += missing_until - following
                following = missing_until
            if number > following:
                break
            following = number + 1
            count += 1
        return Sequence(self.boot, following, tuple(ahead[count:]), lost)


def advanced(known: Mapping[UUID, Sequence], page: Page, node: UUID) -> list[Sequence]:
    """Return the sequences of a node's boots that a page changes; a later boot ends the earlier ones."""
    numbers: defaultdict[UUID, list[int]] = defaultdict(list)
    lines: list[Boot | Open | Record] = [*page.boots, *page.opens]
    lines += [ended.record for ended in page.ended]
    for line in lines:
        if line.node == node:
            numbers[line.boot].append(line.seq)
    after = {boot: known.get(boot, Sequence(boot)).advance(seen) for boot, seen in numbers.items()}
    newest = max((boot.boot for boot in page.boots if boot.node == node), default=None)
    for boot, sequence in {**known, **after}.items():
        if newest is not None and boot < newest:
            after[boot] = sequence.end()
    return [sequence for boot, sequence in after.items() if sequence != known.get(boot)]

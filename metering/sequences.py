"""Line numbers per Caddy process: a gap that a window of later lines does not close is a lost line."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from attrs import evolve, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from uuid import UUID

    from metering.journal import Page
    from metering.lines import Head

WINDOW: Final = 1000
"""Lines are written out of order by this much at most."""


MISSING_RANGES: Final = 1000
"""Gaps of a boot that are remembered, so that a line which comes after all is still taken."""


@frozen
class Sequence:
    """The numbers seen of one boot: all below next, apart from those missing, and ahead.

    Missing numbers, as ranges (first, end), were given up as lost; lost counts them, and those too that
    came after all.
    """

    boot: UUID
    next: int = 0
    ahead: tuple[int, ...] = ()
    lost: int = 0
    missing: tuple[tuple[int, int], ...] = ()

    def has(self, number: int) -> bool:
        """Return whether the line of a number was taken."""
        if number >= self.next:
            return number in self.ahead
        return not any(first <= number < end for first, end in self.missing)

    def advance(self, numbers: Iterable[int]) -> Sequence:
        """Return the sequence after these lines too; a number seen before changes nothing."""
        ahead, found = set(self.ahead), self
        for number in numbers:
            if number >= self.next:
                ahead.add(number)
            elif not found.has(number):
                found = evolve(found, missing=tuple(_without(found.missing, number)))
        given_up_below = max(ahead) + 1 - WINDOW if ahead else 0
        return _closed_up(found, sorted(ahead), given_up_below=given_up_below)

    def end(self) -> Sequence:
        """Return the sequence when no line of this boot can come any more: what is missing is lost."""
        return _closed_up(self, list(self.ahead), given_up_below=self.ahead[-1] if self.ahead else 0)

    def close(self, last: int) -> Sequence:
        """Return the sequence when all lines up to the last were written: what is missing of them is lost."""
        return _closed_up(self, list(self.ahead), given_up_below=last + 1)


def _closed_up(sequence: Sequence, ahead: list[int], *, given_up_below: int) -> Sequence:
    # Gaps are skipped, never counted through: a number may be anything up to 2^40.
    following, count, gaps = sequence.next, 0, []
    for number in [*ahead, max(sequence.next, given_up_below)]:
        if number > following and following < given_up_below:
            missing_until = min(number, given_up_below)
            gaps.append((following, missing_until))
            following = missing_until
        if number > following or count == len(ahead):
            break
        following = number + 1
        count += 1
    return Sequence(
        sequence.boot,
        following,
        tuple(ahead[count:]),
        sequence.lost + sum(end - first for first, end in gaps),
        (*sequence.missing, *gaps)[-MISSING_RANGES:],
    )


def _without(ranges: Iterable[tuple[int, int]], number: int) -> Iterator[tuple[int, int]]:
    for first, end in ranges:
        if first <= number < end:
            yield from ((start, stop) for start, stop in ((first, number), (number + 1, end)) if start < stop)
        else:
            yield first, end


def untaken(known: Mapping[UUID, Sequence], page: Page, node: UUID) -> Page:
    """Return a page without the lines of a node that were taken before, or come in it twice.

    The guard writes a record that the access log has not carried, and lines of a lost file again.
    """
    taken: set[tuple[UUID, int]] = set()

    def is_new(line: Head) -> bool:
        place = line.boot, line.seq
        sequence = known.get(line.boot)
        if line.node != node:
            return True
        if place in taken or (sequence is not None and sequence.has(line.seq)):
            return False
        taken.add(place)
        return True

    return evolve(
        page,
        boots=tuple(filter(is_new, page.boots)),
        opens=tuple(filter(is_new, page.opens)),
        progress=tuple(line for line in page.progress if is_new(line.progress)),
        ended=tuple(line for line in page.ended if is_new(line.record)),
    )


def advanced(known: Mapping[UUID, Sequence], page: Page, node: UUID) -> list[Sequence]:
    """Return the sequences of a node's boots that a page changes.

    A later boot ends the earlier ones, and a boot line says up to where lines were written before it.
    """
    numbers: defaultdict[UUID, list[int]] = defaultdict(list)
    boots = [boot for boot in page.boots if boot.node == node]
    lines: list[Head] = [*page.boots, *page.opens]
    lines += [moved.progress for moved in page.progress]
    lines += [ended.record for ended in page.ended]
    for line in lines:
        if line.node == node:
            numbers[line.boot].append(line.seq)
    after = {boot: known.get(boot, Sequence(boot)).advance(seen) for boot, seen in numbers.items()}
    for previous in (boot.previous for boot in boots if boot.previous is not None):
        # The lines of a boot before the first one known were another metering's.
        if previous.boot in after or (known and previous.boot >= max(known)):
            before = after.get(previous.boot) or known.get(previous.boot, Sequence(previous.boot))
            after[previous.boot] = before.close(previous.seq)
    newest = max((boot.boot for boot in boots), default=None)
    for boot, sequence in {**known, **after}.items():
        if newest is not None and boot < newest:
            after[boot] = sequence.end()
    return [sequence for boot, sequence in after.items() if sequence != known.get(boot)]

"""The days of all chains up to a moment, as a checkpoint has them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authz.chains.books import Books
    from authz.chains.links import Day


async def days_until(books: Books, heads: Mapping[str, int] | None = None) -> list[Day]:
    """Return the days of all chains, or of those named up to so many links."""
    closed = await books.days()
    found: list[Day] = []
    for chain, number in (await books.chains()).items():
        if heads is not None and chain not in heads:
            continue
        last = None if heads is None else heads[chain]
        whole = [day for day in closed if day.chain == chain and (last is None or day.last <= last)]
        closed_last = whole[-1] if whole else None
        found += whole + await books.open_days(chain, number, closed=closed_last, last=last)
    return found

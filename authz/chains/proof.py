"""Prove one request: its rows, and the hashes that lead from them to a signed checkpoint.

`check_proof.py` beside this file checks a proof, with nothing else at hand.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.chains import tree
from authz.chains.checkpoint import ordered
from authz.chains.days import days_until
from authz.chains.links import beginning, digest
from authz.errors import CommandError

if TYPE_CHECKING:
    from uuid import UUID

    from authz.chains.books import Books, Place
    from authz.chains.checkpoint import Checkpoint
    from authz.chains.links import Day, Link

_ABOUT: Final = timedelta(minutes=5)
_EVER: Final = timedelta(days=36500)


@frozen
class ProvenRow:
    """A row as a text, and the way from its hash to the root of the checkpoint."""

    row: str
    to_batch: list[tuple[str, str]]
    batch: str
    to_day: list[tuple[str, str]]
    day: str
    to_days: list[tuple[str, str]]


@frozen
class Proof:
    """All rows of a request that are in the checkpoint, and the checkpoint as it was signed."""

    request: str
    rows: list[ProvenRow]
    checkpoint: str


async def prove(books: Books, request: UUID, checkpoint: Checkpoint, note: str) -> Proof:
    """Prove a request by a checkpoint. Raises CommandError."""
    places = await _places(books, request)
    days = ordered(
        await days_until(books, {chain: number for chain, (number, _) in checkpoint.heads.items()})
    )
    if checkpoint.faults_of(days):
        raise CommandError("The checkpoint does not fit this database: see `neuronetz-gateway audit verify`.")
    rows = [await _proven(books, place, days) for place in places]
    found = [row for row in rows if row is not None]
    if not found:
        raise CommandError(
            f"Request {request} is later than the checkpoint: make one with `audit checkpoint`."
        )
    return Proof(str(request), found, note)


async def _places(books: Books, request: UUID) -> list[Place]:
    places = await books.places(request, _ABOUT)
    if any(place.link is None for place in places):
        places = await books.places(request, _EVER)
    if not places:
        raise CommandError(
            f"The ledger has no request {request}: take the id from X-Request-Id; what is dropped can be "
            "proven only by a proof that was made before."
        )
    if any(place.link is None for place in places):
        raise CommandError(f"Request {request} is in no chain: see `neuronetz-gateway audit verify`.")
    return places


async def _proven(books: Books, place: Place, days: list[Day]) -> ProvenRow | None:
    link, number = place.link, place.number
    if link is None or number is None:
        return None
    day = next(
        (day for day in days if day.chain == link.chain and day.first <= link.number <= day.last), None
    )
    if day is None:
        return None
    hashes = await books.hashes(number, day.first, day.last)
    leaves = tree.split(link.leaves)
    leaf = tree.leaf(place.text.encode())
    if leaf not in leaves:
        raise CommandError(f"A row of the request was altered, {place.text}: see `audit verify`.")
    return ProvenRow(
        place.text,
        _written(tree.path(leaves, leaves.index(leaf))),
        link.text(await _before(books, link, number)),
        _written(tree.path(hashes, link.number - day.first)),
        day.text,
        _written(tree.path([digest(each.text) for each in days], days.index(day))),
    )


async def _before(books: Books, link: Link, number: int) -> bytes:
    """Return the hash from which a link follows."""
    if link.number == 1:
        return beginning(link.chain, await books.identity())
    hashes = await books.hashes(number, link.number - 1, link.number - 1)
    if hashes:
        return hashes[0]
    days = await books.days()
    return next(day.hash for day in days if day.chain == link.chain and day.last == link.number - 1)


def _written(steps: list[tree.Step]) -> list[tuple[str, str]]:
    return [(side, hash_.hex()) for side, hash_ in steps]

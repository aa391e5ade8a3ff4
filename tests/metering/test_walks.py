"""A chain that was written anew with hashes that fit, and is none nevertheless: where its walk ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from attrs import evolve

from authz.chains import tree
from authz.chains.links import Day, Link, beginning, digest
from authz.chains.walk import Walk

DATABASE = UUID("019ab0f4-0000-7000-8000-000000000001")
DAY = datetime(2026, 11, 25, 12, tzinfo=UTC)


def chain(change: Callable[[Link], Link] = lambda link: link) -> list[Link]:
    """Three links of two rows each, whose hashes follow from what each is changed to."""
    made, previous = [], beginning("audit", DATABASE)
    for number in range(1, 4):
        ids = b"".join(row.to_bytes(8) for row in (2 * number - 1, 2 * number))
        leaves = tree.leaf(ids[:8]) + tree.leaf(ids[8:])
        link = change(Link("audit", number, DAY, 1, ids, leaves, b""))
        previous = digest(link.text(previous))
        made.append(evolve(link, hash=previous))
    return made


async def walked(links: list[Link], *closed: Day) -> Walk:
    """Follow links, of a chain with these days under roots."""

    async def given() -> AsyncIterator[Link]:
        for link in links:
            yield link

    walk = Walk("audit", DATABASE, list(closed))
    await walk.follow(given())
    return walk


async def test_links_that_follow_are_a_chain() -> None:
    """Of the day of their time, under one root."""
    links = chain()
    walk = await walked(links)
    root = tree.root([link.hash for link in links])
    assert (None, 3, 6) == (walk.fault, walk.links, walk.rows)
    assert [Day("audit", DAY.date(), 1, 3, root, links[-1].hash)] == walk.days


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda link: evolve(link, version=2), id="of a version that is not known"),
        pytest.param(lambda link: evolve(link, leaves=link.leaves + b"x"), id="with a part of a hash"),
    ],
)
async def test_a_link_that_cannot_be_read_is_altered(change: Callable[[Link], Link]) -> None:
    """A hash that fits does not make a link of it."""
    walk = await walked(chain(change))
    assert str(walk.fault).startswith("Link 1 of the chain audit was altered or moved: ")


async def test_a_link_without_rows_is_altered() -> None:
    """No statement that adds nothing makes a link."""
    links = chain()
    walk = await walked([links[0], evolve(links[1], ids=b"", leaves=b"")])
    assert str(walk.fault).startswith("Link 2 of the chain audit was altered or moved: ")


async def test_a_day_whose_links_are_kept_has_their_root() -> None:
    """What is written of a day is compared while its links are there, by whatever it says."""
    links = chain()
    (day,) = (await walked(links)).days
    assert (await walked(links, day)).fault is None
    for changed in (evolve(day, root=day.hash), evolve(day, hash=day.root)):
        fault = (await walked(links, changed)).fault
        assert fault == "The root of 2026-11-25 in the chain audit is not that of its links."


async def test_days_whose_links_are_dropped_have_no_gap() -> None:
    """The first link of each day follows the last one of the day before."""
    days = [Day("audit", date(2026, 11, n), 2 * n - 1, 2 * n, b"r" * 32, b"h" * 32) for n in (1, 2, 3)]
    whole = await walked([], *days)
    assert (None, 6) == (whole.fault, whole.number)
    assert (await walked([], days[0], days[2])).fault == "Links 3 to 4 are missing from the chain audit."

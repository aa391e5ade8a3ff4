"""What metering finds that needs a person is an alert: once in its period, or until it has ended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date

import pytest
from attrs import evolve

from authz.alerts.book import Book
from authz.store import METERING_ROLE, Store
from metering import alerts
from metering.alerts import Found
from metering.budgets import BudgetUse
from metering.metrics import LEDGER_WINDOWS, Metrics
from metering.rows import Tally
from metering.surroundings import Surroundings
from tests.metering.conftest import Begin, Service
from tests.metering.writing import NODE, JournalFile

FINE = Tally(0, 0, 0, 0, 0)
DAILY = BudgetUse("acme", None, "day", date(2026, 11, 25), 800, 1000)


@pytest.fixture
async def book(database: str) -> AsyncIterator[Book]:
    """The alerts, as metering's role sees them."""
    store = Store(database, role=METERING_ROLE, connections=1)
    yield Book(store)
    await store.close()


@pytest.fixture
async def service(begin: Begin, journal: JournalFile) -> Service:
    """Metering on an empty journal, whose Caddy has started."""
    journal.path.with_name("node").write_text(str(NODE))
    return await begin()


def around(service: Service) -> Surroundings:
    """The surroundings of a service."""
    return service.upkeep._around


def metrics(service: Service) -> Metrics:
    """The metrics of a service, which has counted once and found nothing."""
    found = around(service).metrics
    found.counted(FINE)
    return found


async def rounds(service: Service, found: Found, count: int = 1, every_s: float = alerts.ROUND_S) -> None:
    """Look so many times."""
    for _ in range(count):
        service.clock.seconds += every_s
        await found.round()


async def listed(service: Service, book: Book) -> list[tuple[str, int, bool]]:
    """The alerts by name, with their value and whether they have recovered."""
    found = await book.latest(service.clock.began, 1000)
    return sorted((each.name, each.value, each.recovered is not None) for each in found)


async def test_a_budget_is_alerted_at_80_and_at_100(service: Service, book: Book) -> None:
    """Once for each part, day and size of the budget, by however many meterings, and after a restart."""
    known = metrics(service)
    found, other = Found(around(service), book), Found(around(service), book)
    for use in (DAILY, evolve(DAILY, used=900), evolve(DAILY, used=1000), evolve(DAILY, used=1200)):
        known.counted_budgets([use])
        await rounds(service, found, 2)
        await rounds(service, other)
    await rounds(service, Found(around(service), book))
    assert [("budget_nearly_used", 80, False), ("budget_used", 100, False)] == await listed(service, book)

    known.counted_budgets([evolve(DAILY, used=1200, budget=1500)])
    await rounds(service, found)
    known.counted_budgets([evolve(DAILY, start=date(2026, 11, 26), used=850)])
    await rounds(service, found)
    known.counted_budgets([evolve(DAILY, start=date(2026, 11, 26), used=850), evolve(DAILY, key="k")])
    await rounds(service, found)
    (latest, *_) = await book.latest(service.clock.began, 10)
    assert "key k of tenant acme is used to 80 %: 800 of 1,000 tokens" in latest.summary
    assert 5 == len(await listed(service, book))


async def test_less_than_80_is_no_alert(service: Service, book: Book) -> None:
    """A budget of which 79 % are used is nobody's business."""
    metrics(service).counted_budgets([evolve(DAILY, used=790)])
    await rounds(service, Found(around(service), book), 3)
    assert [] == await listed(service, book)


async def test_lost_lines_are_alerted_once(service: Service, book: Book) -> None:
    """Each loss once, however often metering restarts; a second one in the hour waits for the next hour."""
    known = metrics(service)
    known.counted(evolve(FINE, lost_lines=3))
    await rounds(service, Found(around(service), book), 3)
    await rounds(service, Found(around(service), book), 3)
    assert [("lines_lost", 3, False)] == await listed(service, book)
    known.counted(evolve(FINE, lost_lines=5))
    await rounds(service, Found(around(service), book), 3)
    assert 1 == len(await listed(service, book))
    await rounds(service, Found(around(service), book), 2, every_s=3600)
    assert [("lines_lost", 3, False), ("lines_lost", 5, False)] == await listed(service, book)
    (latest, _) = await book.latest(service.clock.began, 10)
    assert latest.summary.startswith(f"2 journal lines of node {NODE} were lost")


async def test_orphans_are_alerted(service: Service, book: Book, journal: JournalFile) -> None:
    """A request whose Caddy died is alerted once it was billed, and no other is."""
    found = Found(around(service), book)
    metrics(service)
    journal.request()
    journal.append(journal.opened(journal.new_id()))
    journal.start()
    await rounds(service, found)
    assert [] == await listed(service, book)
    await service.drain()
    await rounds(service, found, 3)
    assert [("orphans", 1, False)] == await listed(service, book)


async def test_dead_letters_last_until_they_are_replayed(service: Service, book: Book) -> None:
    """A line that was not understood is alerted until there is none any more."""
    known = metrics(service)
    found = Found(around(service), book)
    known.counted(evolve(FINE, dead_letters=2))
    await rounds(service, found, 3)
    assert [("dead_letters", 2, False)] == await listed(service, book)
    known.counted(FINE)
    await rounds(service, found)
    assert [("dead_letters", 2, True)] == await listed(service, book)


async def test_what_is_unknown_has_not_recovered(service: Service, book: Book) -> None:
    """While Postgres's counts can't be read nothing is said of them."""
    known = metrics(service)
    found = Found(around(service), book)
    known.counted(evolve(FINE, dead_letters=2))
    await rounds(service, found)
    known.uncounted()
    await rounds(service, found, 3)
    assert [("dead_letters", 2, False)] == await listed(service, book)


async def test_drift_that_stays_is_alerted_by_one(service: Service, book: Book) -> None:
    """Books that differ for two minutes are one alert of all meterings; what was repaired at once is none."""
    known = metrics(service)
    first, second = Found(around(service), book), Found(around(service), book)
    known.drifted({LEDGER_WINDOWS: 7})
    await rounds(service, first, 6)
    known.drifted({})
    await rounds(service, first, 2)
    assert [] == await listed(service, book)
    known.drifted({LEDGER_WINDOWS: 7})
    for _ in range(15):
        await rounds(service, first)
        await rounds(service, second)
    assert [("drift", 7, False)] == await listed(service, book)
    known.drifted({})
    await rounds(service, second)
    assert [("drift", 7, False)] == await listed(service, book)
    await rounds(service, first)
    assert [("drift", 7, True)] == await listed(service, book)


async def test_a_full_disk_lasts(service: Service, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of which less than a part is free for a minute is alerted until there is more."""
    metrics(service)
    found = Found(around(service), book)
    monkeypatch.setattr(alerts, "LEAST_FREE_PERCENT", 101)
    await rounds(service, found, 5)
    assert [] == await listed(service, book)
    await rounds(service, found, 5)
    ((name, free, is_over),) = await listed(service, book)
    assert ("disk_nearly_full", False) == (name, is_over)
    assert 0 <= free <= 100
    monkeypatch.setattr(alerts, "LEAST_FREE_PERCENT", 0)
    await rounds(service, found)
    assert [(name, free, True)] == await listed(service, book)


async def test_a_duty_that_keeps_failing_lasts(service: Service, book: Book) -> None:
    """A duty that fails for a minute is alerted until it succeeds; one bad moment is none."""
    metrics(service)
    found = Found(around(service), book)
    await service.ledger.execute("ALTER FUNCTION ensure_ledger_partition RENAME TO renamed")
    await service.beat(times=2)
    await rounds(service, found, 10)
    assert [] == await listed(service, book)
    await service.beat(times=8)
    await rounds(service, found, 10)
    ((name, failures, is_over),) = await listed(service, book)
    assert ("task_failing", False) == (name, is_over)
    assert failures >= alerts.FAILURES
    await service.ledger.execute("ALTER FUNCTION renamed RENAME TO ensure_ledger_partition")
    await service.beat(times=10)
    await rounds(service, found)
    assert [True] == [is_over for _, _, is_over in await listed(service, book)]


async def test_nothing_is_said_before_caddy_started(
    service: Service, book: Book, journal: JournalFile
) -> None:
    """A journal of no node has nothing to be alerted."""
    journal.path.with_name("node").unlink()
    metrics(service).counted(evolve(FINE, lost_lines=3))
    await rounds(service, Found(around(service), book), 3)
    assert [] == await listed(service, book)

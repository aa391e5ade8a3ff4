"""Alerts: an event is raised once in its period, posted by one process, and so is its recovery."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from attrs import define, evolve, field

from authz import supervise
from authz.alerts import poster, watched, webhook
from authz.alerts.alert import BACKEND_AWAY, BUDGET_USED, DISK_NEARLY_FULL, Alert
from authz.alerts.book import Book
from authz.alerts.poster import Poster
from authz.alerts.reporter import Reporter
from authz.alerts.webhook import Webhook
from authz.backends.backend import Backend
from authz.backends.inventory import Seen
from authz.store import Store
from tests.authz.receiver import HANGS, Receiver, receiving

NINE = datetime(2026, 11, 27, 9, tzinfo=UTC)
GPU = Seen(Backend("gpu", "http://h:1"))
RAISED, RECOVERED = ("backend_away", "raised"), ("backend_away", "recovered")


@define
class Site:
    """Processes of authz that share a database, a clock and what they see of the backends."""

    store: Store
    receiver: Receiver
    tables: Path
    seen: list[Seen] = field(factory=list)
    seconds: float = 0.0

    def now(self) -> datetime:
        """Return the wall clock."""
        return NINE + timedelta(seconds=self.seconds)

    def process(self, url: str | None = "") -> Poster:
        """Begin a process; None is one without a receiver."""
        target = None if url is None else Webhook(url or f"{self.receiver.url}/hook?key=1", "token")
        return Poster(
            Book(self.store), target, lambda: self.seen, self.tables, self.now, lambda: self.seconds
        )

    async def rounds(self, process: Poster, count: int, every_s: float = poster.ROUND_S) -> None:
        """Let a process do so many rounds."""
        for _ in range(count):
            self.seconds += every_s
            await process.round()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with receiving() as made:
        yield made


@pytest.fixture
def site(store: Store, receiver: Receiver, tmp_path: Path) -> Site:
    """A site whose backends all answer."""
    return Site(store, receiver, tmp_path)


def used(key: str, period: str = "2026-11-27") -> Alert:
    """A budget of a key that is used up."""
    return Alert(
        kind=BUDGET_USED, subject=f"acme/{key}/day", summary=f"{key} is used up", value=100, period=period,
        tenant="acme", key=key,
    )  # fmt: skip


async def test_a_backend_that_stays_away_is_posted_once(site: Site) -> None:
    """It is posted when it has been away for a minute, once by any number of processes and restarts."""
    first, second = site.process(), site.process()
    site.seen = [GPU]
    await site.rounds(first, 12)
    assert [] == site.receiver.got
    for _ in range(30):
        await site.rounds(first, 1)
        await site.rounds(second, 1)
    await site.rounds(site.process(), 60)
    assert [RAISED] == site.receiver.got
    (body,) = site.receiver.bodies
    assert ("critical", "gpu", 0) == (body["severity"], body["backend"], body["value"])
    assert body["text"].startswith("[critical] The backend gpu does not answer authz. `neuronetz-gateway ")
    assert ("/hook?key=1", "Bearer token") == (
        site.receiver.paths[0],
        site.receiver.headers[0]["authorization"],
    )


async def test_a_recovery_says_so_once(site: Site) -> None:
    """A backend that answers again is posted under the id of its alert; a flap in the hour is not posted."""
    process = site.process()
    site.seen = [GPU]
    await site.rounds(process, 14)
    site.seen = [evolve(GPU, is_live=True)]
    await site.rounds(process, 3)
    assert [RAISED, RECOVERED] == site.receiver.got
    raised, recovered = site.receiver.bodies
    assert raised["id"] == recovered["id"]
    assert recovered["text"].startswith("[recovered] The backend gpu")

    site.seen = [GPU]
    await site.rounds(process, 100)
    assert 2 == len(site.receiver.got)
    await site.rounds(process, 60, every_s=60)
    assert [RAISED] == site.receiver.got[2:]
    assert raised["id"] != site.receiver.bodies[2]["id"]


async def test_another_process_takes_over(site: Site) -> None:
    """When the one that posts ends, another one posts within a minute what it had not, and watches on."""
    first, second = site.process(), site.process()
    await site.rounds(first, 1)
    site.seen = [GPU]
    await site.rounds(second, 8)
    assert second._backends is None
    await site.rounds(second, 14)
    assert [RAISED] == site.receiver.got
    await first.round()
    assert first._backends is None


@pytest.mark.parametrize("answer", [500, 404, 429, 302, HANGS])
async def test_what_is_not_taken_is_retried(site: Site, answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that fails, sends elsewhere or hangs gets the same alert again, later each time."""
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    site.receiver.answers = [answer, answer, 200]
    await Book(site.store).add("books", [used("first")], at=site.now())
    site.seconds += 1
    await Book(site.store).add("books", [used("second")], at=site.now())
    process = site.process()
    await process.round()
    assert ["first"] == [body["key"] for body in site.receiver.bodies]
    await process.round()
    assert ["first", "second"] == [body["key"] for body in site.receiver.bodies]
    await process.round()
    assert 2 == len(site.receiver.bodies), "it was retried at once"
    await site.rounds(process, 3, every_s=10)
    assert ["first", "second", "first", "second"] == [body["key"] for body in site.receiver.bodies]
    assert 2 == len({body["id"] for body in site.receiver.bodies})
    await site.rounds(process, 100)
    assert 4 == len(site.receiver.bodies)


async def test_a_receiver_that_is_down_is_found_later(site: Site) -> None:
    """While nothing listens, an alert waits in Postgres, with ten minutes at most between two attempts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    await Book(site.store).add("books", [used("a")], at=site.now())
    await site.rounds(site.process(url), 100, every_s=30)
    process = site.process()
    await site.rounds(process, 1, every_s=poster.RETRY_MAX_S)
    assert [("budget_used", "raised")] == site.receiver.got


async def test_old_news_is_given_up(site: Site, owner_of_tables: asyncpg.Connection) -> None:
    """What no receiver has taken within a day is not posted any more, and stays in the list."""
    site.receiver.answers = [500]
    await Book(site.store).add("books", [used("a")], at=site.now())
    process = site.process()
    await site.rounds(process, 3, every_s=10)
    attempts = len(site.receiver.bodies)
    site.receiver.answers = [200]
    site.seconds += 86_400
    await process.round()
    assert attempts == len(site.receiver.bodies)
    assert 1 == await owner_of_tables.fetchval(
        "SELECT count(*) FROM alerts WHERE posted_at IS NULL AND due_at IS NULL"
    )


async def test_an_event_that_ended_before_it_was_posted(site: Site) -> None:
    """What recovered while its receiver was down is posted as raised, then as recovered."""
    site.receiver.answers = [500, 200]
    process = site.process()
    site.seen = [GPU]
    await site.rounds(process, 14)
    assert [RAISED] == site.receiver.got
    site.seen = []
    await site.rounds(process, 5)
    assert [RAISED, RAISED, RECOVERED] == site.receiver.got


async def test_a_queue_is_bounded(site: Site) -> None:
    """Of a thousand events at once 200 are posted, and one more that says so; all are in the list."""
    reporter = Reporter(Book(site.store), "books", site.now, lambda: site.seconds)
    holding = [used(f"k{number}") for number in range(1000)]
    assert 1000 == len(await reporter.report(holding))
    assert set() == await reporter.report(holding)
    listed = await Book(site.store).latest(NINE, 2000)
    assert 1001 == len(listed)
    queued = [each.name for each in listed if each.is_queued]
    assert (200, 1) == (queued.count("budget_used"), queued.count("queue_full"))
    process = site.process()
    await site.rounds(process, 2)
    assert 2 * poster.AT_ONCE == len(site.receiver.got)


async def test_a_period_is_an_event_of_its_own(site: Site) -> None:
    """A budget that is used up is raised once a window, whoever reports it, and again in the next."""
    reporters = [Reporter(Book(site.store), "books", site.now, lambda: site.seconds) for _ in range(3)]
    counts = [len(await each.report([used("a"), used("b")])) for each in reporters]
    assert [2, 0, 0] == counts
    counts = [len(await each.report([used("a", "2026-11-28")])) for each in reporters]
    assert [1, 0, 0] == counts
    assert 3 == len(await Book(site.store).latest(NINE, 10))


async def test_only_its_source_ends_an_event(site: Site) -> None:
    """What one node finds full is not said to have recovered by another one, nor by a restart of its own."""

    def full(node: str) -> Alert:
        return Alert(kind=DISK_NEARLY_FULL, subject=node, summary="full", value=9, node=node)

    def reporter(node: str) -> Reporter:
        return Reporter(Book(site.store), f"metering/{node}", site.now, lambda: site.seconds)

    first, second = reporter("a"), reporter("b")
    for _ in range(2):
        await first.report([full("a")])
        await second.report([])
        site.seconds += 60
    assert {("disk_nearly_full", "a")} == await Book(site.store).open_events("metering/a")
    await reporter("a").report([full("a")])
    assert {("disk_nearly_full", "a")} == await Book(site.store).open_events("metering/a")
    await reporter("a").report([])
    assert set() == await Book(site.store).open_events("metering/a")


async def test_without_a_receiver_all_is_listed(site: Site) -> None:
    """Without GATEWAY_ALERT_URL nothing waits; once it is set, what still lasts is posted alone."""
    process = site.process(None)
    site.seen = [GPU]
    await Book(site.store).add("books", [used("a")], at=site.now())
    await site.rounds(process, 14)
    assert ["backend_away", "budget_used"] == sorted(
        each.name for each in await Book(site.store).latest(NINE, 10)
    )
    await site.rounds(site.process(), 20)
    assert [RAISED] == site.receiver.got


async def test_a_task_that_keeps_failing_is_posted(site: Site) -> None:
    """Five unforeseen failures of a task within five minutes are an alert a day, fewer are none."""
    process = site.process()
    await site.rounds(process, 1)
    try:
        supervise.failures["a test of alerts"] += watched.FAILURES - 1
        await site.rounds(process, 1)
        assert [] == site.receiver.got
        supervise.failures["a test of alerts"] += 1
        await site.rounds(process, 3)
    finally:
        del supervise.failures["a test of alerts"]
    assert [("task_failing", "raised")] == site.receiver.got


async def test_a_bound_that_was_exceeded_is_posted(site: Site) -> None:
    """A model whose answers report more than their bound is named once."""
    digest = "ab" * 32
    index = {"v": 1, "models": {"demo:latest": [digest]}}
    (site.tables / "index.json").write_text(json.dumps(index))
    (site.tables / f"{digest}.exceeded").write_text("3")
    await site.rounds(site.process(), 20, every_s=30)
    await site.rounds(site.process(), 5, every_s=30)
    assert [("bound_exceeded", "raised")] == site.receiver.got
    assert "3 answers of demo:latest " in site.receiver.bodies[0]["summary"]


async def test_old_alerts_are_forgotten(site: Site) -> None:
    """After 90 days an alert is deleted, unless it lasts."""
    book = Book(site.store)
    lasting = Alert(kind=BACKEND_AWAY, subject="gpu", summary="away", value=0)
    await book.add("backends", [lasting, used("a")], at=site.now())
    site.seen = [GPU]
    site.seconds += 91 * 86_400
    await site.process().round()
    assert ["backend_away"] == [each.name for each in await book.latest(NINE, 10)]

"""The metrics of metering: lag and loss are visible, and looking at them costs the bill nothing."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from datetime import timedelta
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import asyncpg
import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from metering import watch
from metering.listener import listening
from metering.metrics import Metrics
from metering.surroundings import Surroundings
from tests.metering.conftest import Begin
from tests.metering.writing import KEY, START, TENANT, JournalFile

LINES = "gateway_lines_total"


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


async def test_lines_are_counted_by_what_became_of_them(begin: Begin, journal: JournalFile) -> None:
    """Every committed line counts once: what was a replay and what was not understood, too."""
    request_id = journal.request()
    journal.append(journal.ended(request_id) + b"garbage\n")
    journal.request(deltas=1000)
    service = await begin()
    await service.drain()
    found = samples(service.metering._metrics)
    assert (1, 2) == (found[LINES, "boot"], found[LINES, "open"])
    assert (2, 1) == (found[LINES, "settled"], found[LINES, "no_row"])
    assert 1 == found[LINES, "rejected"]
    assert 10 + 1000 - 300 == found["gateway_overrun_tokens_total",]
    assert 1 <= found["gateway_settle_seconds_count",]


async def test_orphans_are_counted(begin: Begin, journal: JournalFile) -> None:
    """A request charged at its reservation is counted once its Caddy is proven dead."""
    journal.append(journal.opened(journal.new_id()))
    journal.start()
    service = await begin()
    await service.drain()
    assert 1 == samples(service.metering._metrics)["gateway_orphans_total",]


async def test_lag_in_bytes_is_what_is_not_read(begin: Begin, journal: JournalFile) -> None:
    """Lag counts what was written and not read, across rotation, and also when the loop has died."""
    journal.request()
    service = await begin()
    metrics = service.metering._metrics
    assert journal.path.stat().st_size == samples(metrics)["gateway_lag_bytes",]
    await service.drain()
    assert 0 == samples(metrics)["gateway_lag_bytes",]
    before = journal.path.stat().st_size
    journal.request()
    written = journal.path.stat().st_size - before
    journal.rotate()
    assert written == samples(metrics)["gateway_lag_bytes",]
    await service.end()
    assert written == samples(metrics)["gateway_lag_bytes",]


async def test_lag_in_seconds_is_the_age_of_the_last_end(begin: Begin, journal: JournalFile) -> None:
    """Unknown before the first end, then it grows until the next end is committed."""
    service = await begin()
    metrics = service.metering._metrics
    at_first = metrics.known_until
    assert at_first is None
    assert str(samples(metrics)["gateway_lag_seconds",]) == "nan"
    await service.beat()
    known_until = metrics.known_until
    assert known_until is not None
    metrics._clock = lambda: known_until + timedelta(seconds=90)
    assert 90 == samples(metrics)["gateway_lag_seconds",]


async def test_what_postgres_counts(
    begin: Begin, journal: JournalFile, database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open requests, dead letters, lost lines, the outbox and models are reported as Postgres has them."""
    for model in ("a", "b", "b"):
        for journal.tenant, journal.key in ((TENANT, KEY), (uuid4(), uuid4())):
            journal.request(model=model)
    journal.append(journal.opened(journal.new_id()) + b"garbage\n")
    journal.seq += 3
    journal.start()
    journal.append(journal.opened(journal.new_id()))
    service = await begin()
    await service.drain()
    around = Surroundings(journal.path, database, redis_url, clock=lambda: START)
    monkeypatch.setattr(watch, "TALLY_EVERY_S", 0.01)
    watching = asyncio.create_task(watch.watch(around))
    async with asyncio.timeout(10):
        while not samples(around.metrics)["gateway_open_requests",] > 0:
            await asyncio.sleep(0.01)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    found = samples(around.metrics)
    assert (1, 1) == (found["gateway_open_requests",], found["gateway_dead_letters",])
    assert await service.count("unpublished") == found["gateway_unpublished",]
    assert 2 == found["gateway_learned_models",]
    lost = await service.ledger.fetchval("SELECT sum(lost)::bigint FROM journal_sequences")
    assert lost == found["gateway_sequence_gaps_total",]


async def test_watching_outlives_postgres(
    journal: JournalFile, database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thrown out by Postgres, the watch begins again."""
    monkeypatch.setattr(watch, "TALLY_EVERY_S", 0.01)
    around = Surroundings(journal.path, database, redis_url, clock=lambda: START)
    watching = asyncio.create_task(watch.watch(around))
    ours = await asyncpg.connect(database)
    others = "pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with asyncio.timeout(10):
        while not (first := await ours.fetchval(f"SELECT {others}")):
            await asyncio.sleep(0.01)
        await ours.execute("SELECT pg_terminate_backend($1)", first)
        while await ours.fetchval(f"SELECT {others}") in {None, first}:
            await asyncio.sleep(0.01)
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await ours.close()


async def test_watching_outlives_whatever_fails(
    begin: Begin, journal: JournalFile, database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file can't be read the figures are unknown, never old; the watch goes on when it can again."""
    monkeypatch.setattr(watch, "TALLY_EVERY_S", 0.01)
    around = Surroundings(journal.path, database, redis_url, clock=lambda: START)
    watching = asyncio.create_task(watch.watch(around))
    node, broken = journal.path.with_name("node"), journal.path.with_name("broken")
    async with asyncio.timeout(20):
        for _ in range(2):
            while isnan(samples(around.metrics)["gateway_open_requests",]):
                await asyncio.sleep(0.01)
            node.rename(broken)
            node.mkdir()
            while not isnan(samples(around.metrics)["gateway_open_requests",]):
                await asyncio.sleep(0.01)
            node.rmdir()
            broken.rename(node)
    assert 2 <= samples(around.metrics)["gateway_duty_failures_total", "books"]
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture
def socket() -> Iterator[Path]:
    """Where metrics are asked for; a path short enough to be bound."""
    with TemporaryDirectory(prefix="nz") as folder:
        yield Path(folder) / "metering.sock"


async def test_metrics_over_a_socket(socket: Path) -> None:
    """The socket is its owner's alone, replaces one left by a dead process, and answers one path."""
    Path.touch(socket)
    metrics = Metrics(CollectorRegistry())
    async with listening(socket, metrics), over(socket) as client:
        assert stat.filemode(stat.S_IFSOCK | 0o600) == mode(socket)
        found = await client.get("/metrics")
        assert (200, "text/plain; version=0.0.4; charset=utf-8") == (
            found.status_code,
            found.headers["content-type"],
        )
        assert "gateway_lag_bytes NaN" in found.text
        assert 404 == (await client.get("/")).status_code
        assert 404 == (await client.post("/metrics")).status_code


async def test_whoever_asks_nonsense_is_hung_up_on(socket: Path) -> None:
    """A head that is too long, or that never ends, disturbs no other client."""
    metrics = Metrics(CollectorRegistry())
    async with listening(socket, metrics), over(socket) as client:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"x" * 100_000)
        assert not await reader.read()
        writer.close()
        idle, quiet = await asyncio.open_unix_connection(socket)
        assert 200 == (await client.get("/metrics")).status_code
        quiet.write_eof()
        assert not await idle.read()
        quiet.close()


async def test_no_socket_is_no_reason_to_end(tmp_path: Path) -> None:
    """Where no socket can be made there are no metrics; the bill goes on."""
    async with listening(tmp_path / "nowhere" / "metering.sock", Metrics(CollectorRegistry())):
        assert not (tmp_path / "nowhere").exists()


def mode(path: Path) -> str:
    """What a path is and who may use it."""
    return stat.filemode(path.stat().st_mode)


def over(socket: Path) -> httpx.AsyncClient:
    """A client on a socket."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    return httpx.AsyncClient(transport=transport, base_url="http://metering")

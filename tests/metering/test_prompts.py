"""Sealed prompts: from the spool into Postgres once, within bounds, and out of it in time."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest
from attrs import evolve
from prometheus_client import CollectorRegistry

from authz.errors import StoreUnavailable
from metering.metrics import Metrics
from metering.prompts import Piece, PromptStore, Spool
from tests.metering.conftest import Begin
from tests.metering.writing import KEY, TENANT

NOW = datetime.now(UTC)
WEEK: Final = timedelta(days=7)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """One moment for all of a test: days end while tests run."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC))


def piece(request: UUID, index: int = 0, *, expires: datetime | None = None, **changes: object) -> Piece:
    """A piece of a prompt."""
    made = Piece(
        v=1,
        id=request,
        tenant=TENANT,
        key=KEY,
        at_ms=int(NOW.timestamp() * 1000),
        expires=int((expires or NOW + WEEK).timestamp()),
        direction=0,
        index=index,
        flags=0,
        vault="0123456789abcdef",
        box=b"sealed" * 10,
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    return Spool(folder, 1000)


def write(spool: Spool, *pieces: Piece, name: str = "1.ready", end: bytes = b"") -> Path:
    """Write a file as Caddy does."""
    path = spool.folder / name
    path.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in pieces) + end)
    return path


@pytest.fixture
def metrics() -> Metrics:
    """The metrics of a process."""
    return Metrics(CollectorRegistry())


@pytest.fixture
async def store(database: str) -> AsyncIterator[PromptStore]:
    """Metering's own connection."""
    made = await PromptStore.connect(database)
    yield made
    await made.close()


@pytest.fixture
async def owner(database: str) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the tables, who sees what metering may not."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def kept(owner: asyncpg.Connection) -> list[tuple[UUID, int, bytes | None]]:
    """What is in Postgres."""
    rows = await owner.fetch(
        "SELECT request_id, index, box FROM prompt_pieces ORDER BY at, request_id, index"
    )
    return [tuple(row) for row in rows]


async def partitions(owner: asyncpg.Connection) -> list[str]:
    """The days of which there is anything."""
    return [
        row["name"]
        for row in await owner.fetch(
            "SELECT inhrelid::regclass::text AS name FROM pg_inherits "
            "WHERE inhparent = 'prompt_pieces'::regclass ORDER BY 1"
        )
    ]


def counted(metrics: Metrics) -> dict[str, float]:
    """How many pieces were counted as what."""
    return {name: each._value.get() for name, each in metrics.prompt_pieces.items()}


async def test_each_piece_is_stored_once(
    spool: Spool, store: PromptStore, owner: asyncpg.Connection, metrics: Metrics
) -> None:
    """A file goes when it is committed; one that is read again, after a crash in between, adds nothing."""
    request = uuid4()
    for _ in range(2):
        path = write(spool, piece(request), piece(request, 1), piece(request, 1, direction=1))
        await spool.take(store, metrics)
        assert not path.exists()
        assert 3 == len(await kept(owner))
    assert 180 == await owner.fetchval("SELECT sum(bytes) FROM prompt_bytes")
    day = NOW + WEEK
    assert [f"prompt_pieces_{day:%Y%m%d}"] == await partitions(owner)


async def test_what_caddy_still_writes_is_left_alone(
    spool: Spool, store: PromptStore, owner: asyncpg.Connection, metrics: Metrics
) -> None:
    """Only files that Caddy has ended are taken."""
    path = write(spool, piece(uuid4()), name="2.part")
    await spool.take(store, metrics)
    assert path.exists()
    assert [] == await kept(owner)


async def test_what_is_no_piece_is_passed_over(
    spool: Spool, store: PromptStore, owner: asyncpg.Connection, metrics: Metrics
) -> None:
    """A torn line, another version and what Postgres refuses are counted; the pieces beside them are kept."""
    first, last, refused = uuid4(), uuid4(), uuid4()
    await owner.execute(f"ALTER TABLE prompt_pieces ADD CHECK (request_id <> '{refused}')")
    strange = [
        piece(uuid4(), v=2),
        piece(uuid4(), direction=3),
        piece(uuid4(), flags=-1),
        piece(uuid4(), index=2**70),
        piece(uuid4(), index=-1),
        piece(uuid4(), expires=datetime(9999, 1, 1, tzinfo=UTC)),
        piece(uuid4(), vault="\0"),
        piece(refused),
    ]
    write(spool, piece(first), *strange, piece(last), end=b'{"v":1,"id":"019ab')
    await spool.take(store, metrics)
    assert {first, last} == {request for request, _, _ in await kept(owner)}
    assert {"stored": 2, "beyond": 0, "rejected": 9} == counted(metrics)


async def test_a_tenant_has_so_much_and_no_more(
    spool: Spool, store: PromptStore, owner: asyncpg.Connection, metrics: Metrics
) -> None:
    """What exceeds a tenant's most is noted without its text, in one batch or in several, others' is not."""
    request, other = uuid4(), uuid4()
    spool = evolve(spool, most_bytes=150)
    write(spool, *[piece(request, index) for index in range(3)], piece(other, tenant=uuid4()))
    await spool.take(store, metrics)
    write(spool, piece(request, 3))
    await spool.take(store, metrics)
    boxes = {(found, index): box for found, index, box in await kept(owner)}
    assert [True, True, False, False] == [bool(boxes[request, index]) for index in range(4)]
    assert boxes[other, 0]
    assert {"stored": 3, "beyond": 2, "rejected": 0} == counted(metrics)
    assert 0 == await store.expire()
    assert 120 == await owner.fetchval("SELECT bytes FROM prompt_bytes WHERE tenant_id = $1", TENANT)


async def test_what_has_expired_goes(
    spool: Spool, store: PromptStore, owner: asyncpg.Connection, metrics: Metrics
) -> None:
    """Pieces go at their moment, partitions with their day, also if nothing ran meanwhile; no others do."""
    later = uuid4()
    write(spool, piece(uuid4()), piece(uuid4()), piece(later))
    await spool.take(store, metrics)
    whole = f"prompt_pieces_{NOW + WEEK:%Y%m%d}"
    await owner.execute(
        "SELECT store_prompts(array_agg(gen_random_uuid()), array_agg(1::smallint), array_agg(0::bigint), "
        "array_agg(0::smallint), array_agg($1::uuid), array_agg($1::uuid), array_agg(now()), array_agg(e), "
        "array_agg('v'::text), array_agg('\\x00'::bytea), 9) FROM unnest($2::timestamptz[]) AS e",
        TENANT,
        [NOW + timedelta(days=9)],
    )
    # A day that is over, and a moment of today that is: what a service that was off finds.
    await owner.execute(
        "CREATE TABLE prompt_pieces_20200101 (LIKE prompt_pieces INCLUDING ALL);"
        "ALTER TABLE prompt_pieces ATTACH PARTITION prompt_pieces_20200101 FOR VALUES IN ('2020-01-01')"
    )
    await owner.execute(
        "INSERT INTO prompt_pieces SELECT '2020-01-01', gen_random_uuid(), 0, i, 0, $1, $1, now(), "
        "'2020-01-01', 'v', '\\x00' FROM generate_series(1, 5) AS i",
        TENANT,
    )
    assert 5 == await store.expire()
    assert [whole, f"prompt_pieces_{NOW + timedelta(days=9):%Y%m%d}"] == await partitions(owner)
    assert 4 == len(await kept(owner))

    day = await owner.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    await owner.execute(f"CREATE TABLE prompt_pieces_{day:%Y%m%d} (LIKE prompt_pieces INCLUDING ALL)")
    await owner.execute(
        f"ALTER TABLE prompt_pieces ATTACH PARTITION prompt_pieces_{day:%Y%m%d} FOR VALUES IN ('{day}')"
    )
    await owner.execute(
        "INSERT INTO prompt_pieces SELECT $2, gen_random_uuid(), 0, i, 0, $1, $1, now(), "
        "now() + (i - 1) * interval '1 hour', 'v', '\\x0000' FROM unnest(ARRAY[0, 1, 2]) AS i",
        TENANT,
        day,
    )
    await owner.execute("INSERT INTO prompt_bytes VALUES ($1, $2, 6)", TENANT, day)
    assert 2 == await store.expire()
    assert 2 == await owner.fetchval("SELECT bytes FROM prompt_bytes WHERE expires_on = $1", day)
    assert 5 == len(await kept(owner))


async def test_what_comes_after_its_time_is_not_stored(
    spool: Spool, store: PromptStore, owner: asyncpg.Connection, metrics: Metrics
) -> None:
    """A piece that has expired in the spool, or that was erased before it came, is removed unread."""
    erased = uuid4()
    await owner.execute("SELECT erase_prompts($1)", erased)
    late = piece(uuid4(), tenant=erased)
    newer = piece(uuid4(), tenant=erased, at_ms=int((NOW + timedelta(hours=1)).timestamp() * 1000))
    path = write(spool, piece(uuid4(), expires=NOW - timedelta(seconds=1)), late, newer)
    await spool.take(store, metrics)
    assert not path.exists()
    assert [newer.id] == [request for request, _, _ in await kept(owner)]


async def test_an_erasure_takes_one_tenants(
    spool: Spool, store: PromptStore, owner: asyncpg.Connection, metrics: Metrics
) -> None:
    """All prompts of a tenant go at once, and no one else's."""
    other = uuid4()
    write(spool, piece(uuid4()), piece(uuid4()), piece(uuid4(), tenant=other))
    await spool.take(store, metrics)
    assert 2 == await owner.fetchval("SELECT erase_prompts($1)", TENANT)
    assert 1 == len(await kept(owner))
    assert [other] == [row["tenant_id"] for row in await owner.fetch("SELECT tenant_id FROM prompt_bytes")]


async def test_without_postgres_files_stay(spool: Spool, store: PromptStore, metrics: Metrics) -> None:
    """What can't be committed is left in the spool."""
    path = write(spool, piece(uuid4()))
    await store.close()
    with pytest.raises(StoreUnavailable):
        await spool.take(store, metrics)
    assert path.exists()


async def test_metering_takes_them_beside_the_bill(begin: Begin, spool: Spool) -> None:
    """The duties store and expire; a spool that can't be read stops none of the others."""
    write(spool, piece(uuid4()))
    service = await begin()
    service.upkeep._around = evolve(service.upkeep._around, spool=spool)
    await service.drain()
    assert 1 == await service.count("prompt_pieces")
    (spool.folder / "2.ready").mkdir()
    await service.beat(times=3)
    assert service.upkeep._turns["prompts"].failures
    assert 0 == service.upkeep._turns["ledger"].failures == service.upkeep._turns["expiry"].failures

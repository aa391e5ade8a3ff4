"""What `doctor` finds in Postgres and Redis, each in a state that must not be."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from attrs import evolve
from redis.asyncio import Redis

from authz import schema
from authz.__main__ import run
from authz.limiter.limiter import Limiter
from authz.stack import embedded
from authz.stack.doctor import clocks, postgres, record, redis
from authz.stack.doctor.clocks import Clock
from authz.stack.doctor.finding import Finding, Level
from authz.stack.doctor.postgres import Facts, Node

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


def judged(facts: Facts | str, *, deciders: int = 2) -> list[Finding]:
    """Judge what was gathered, at a time of which nothing depends."""
    assert isinstance(facts, Facts)
    return postgres.judge(facts, deciders=deciders, known=schema.known(), now=NOW)


def wrong(found: list[Finding]) -> list[tuple[Level, str]]:
    """Return what is not well, but for backups, of which a fresh database has none."""
    return [
        (each.level, each.check) for each in found if each.level is not Level.OK and each.check != "backup"
    ]


async def test_a_migrated_database_is_well(database: str) -> None:
    """Migrations alone make a database about which there is nothing to say."""
    found = judged(await postgres.gather(database))
    assert [] == wrong(found)
    assert {"postgres", "migrations", "roles", "backup"} == {each.check for each in found}


@pytest.mark.parametrize(
    ("statement", "excess"),
    [
        ("GRANT UPDATE ON ledger TO gateway_metering", "gateway_metering has UPDATE ON ledger"),
        ("GRANT UPDATE (output_tokens) ON ledger TO gateway_admin", "gateway_admin has UPDATE ON ledger"),
        ("GRANT DELETE ON admin_audit TO gateway_admin", "gateway_admin has DELETE ON admin_audit"),
        ("GRANT SELECT ON secrets TO PUBLIC", "everybody has SELECT ON secrets"),
        ("GRANT CREATE ON SCHEMA public TO gateway_authz", "gateway_authz has CREATE ON SCHEMA public"),
    ],
)
async def test_more_rights_than_the_migrations_give(
    database: str, owner_of_tables: asyncpg.Connection, statement: str, excess: str
) -> None:
    """A right to rewrite what was billed, or of everybody, is named with the role that has it."""
    await owner_of_tables.execute(statement)
    found = judged(await postgres.gather(database))
    assert [(Level.FAIL, "roles")] == wrong(found)
    assert any(excess in each.sentence for each in found)


async def test_a_partition_counts_like_the_ledger(database: str, owner_of_tables: asyncpg.Connection) -> None:
    """A right to a day of the ledger is one to rewrite it."""
    await owner_of_tables.execute("SELECT ensure_ledger_partition('2026-11-25')")
    await owner_of_tables.execute("GRANT UPDATE ON ledger_20261125 TO gateway_authz")
    assert [(Level.FAIL, "roles")] == wrong(judged(await postgres.gather(database)))


async def test_a_role_that_may_make_others(database: str, owner_of_tables: asyncpg.Connection) -> None:
    """A role's own attributes are looked at, too."""
    await owner_of_tables.execute("ALTER ROLE gateway_authz CREATEROLE")
    try:
        found = judged(await postgres.gather(database))
    finally:
        await owner_of_tables.execute("ALTER ROLE gateway_authz NOCREATEROLE")
    assert [(Level.FAIL, "roles")] == wrong(found)


async def test_migrations_that_are_missing(database: str, owner_of_tables: asyncpg.Connection) -> None:
    """An older database fails, a newer one is a warning: for one release it may be."""
    await owner_of_tables.execute("INSERT INTO schema_migrations (version) VALUES ('29990101000000')")
    assert [(Level.WARN, "migrations")] == wrong(judged(await postgres.gather(database)))
    await owner_of_tables.execute("DELETE FROM schema_migrations WHERE version LIKE '20261129%'")
    assert [(Level.FAIL, "migrations")] == wrong(judged(await postgres.gather(database)))


async def test_an_empty_database(stores: Path) -> None:
    """Without a schema there is one thing to do, and nothing else is asked for."""
    found = judged(await postgres.gather(embedded.postgres_url(stores, "template1")))
    assert [(Level.FAIL, "migrations")] == wrong(found)


async def test_a_database_that_is_not_there(stores: Path) -> None:
    """The reason is one sentence, without the URL, which may hold a password."""
    reason = await postgres.gather(embedded.postgres_url(stores, "nowhere"))
    assert isinstance(reason, str)
    assert "check DATABASE_URL" in reason
    assert "nowhere" not in reason


async def test_the_server_itself(database: str) -> None:
    """A server that is too old, too small or no primary fails."""
    facts = await postgres.gather(database)
    assert isinstance(facts, Facts)
    for found in (
        judged(evolve(facts, number=140_012)),
        judged(evolve(facts, is_standby=True)),
        judged(evolve(facts, foreign=facts.most_connections - 19)),
        judged(facts, deciders=100),
    ):
        assert [(Level.FAIL, "postgres")] == wrong(found)


async def test_the_age_of_the_backup(database: str, owner_of_tables: asyncpg.Connection) -> None:
    """A backup older than two days is a warning, the newest one counts."""
    query = "INSERT INTO admin_audit (at, actor, action) VALUES ($1, 'tester', 'backup_made')"
    await owner_of_tables.execute(query, NOW - timedelta(days=3))
    levels = [each.level for each in judged(await postgres.gather(database)) if each.check == "backup"]
    await owner_of_tables.execute(query, NOW - timedelta(days=1))
    levels += [each.level for each in judged(await postgres.gather(database)) if each.check == "backup"]
    assert [Level.WARN, Level.OK] == levels


@pytest.fixture
def own_redis() -> Iterator[str]:
    """A Redis that a test may spoil."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder, embedded.redis_server(Path(folder)) as running:
        yield running.url


@pytest.fixture
async def operator(own_redis: str) -> AsyncIterator[Redis]:
    """What an operator does to it."""
    async with Redis.from_url(own_redis) as client:
        yield client


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("maxmemory", "1", "full")],
)
async def test_a_redis_that_forgets(
    own_redis: str, operator: Redis, name: str, value: str, word: str
) -> None:
    """One that evicts, or is full, is named with what to set."""
    assert [Level.OK] == [each.level for each in redis.judge(await redis.gather(own_redis, []))]
    await operator.config_set(name, value)
    found = redis.judge(await redis.gather(own_redis, []))
    assert [Level.FAIL] == [each.level for each in found]
    assert word in found[0].sentence


async def test_a_redis_that_is_a_replica(own_redis: str, operator: Redis) -> None:
    """A replica takes no writes."""
    await operator.slaveof("127.0.0.1", 9)
    found = redis.judge(await redis.gather(own_redis, []))
    assert [Level.FAIL] == [each.level for each in found]


async def test_the_metering_of_a_node(
    database: str, redis_url: str, owner_of_tables: asyncpg.Connection, limiter: Limiter
) -> None:
    """It must have vouched within a minute, and have read its journal to an end; a retired one need not."""
    node, other = uuid4(), uuid4()
    await owner_of_tables.execute("INSERT INTO nodes (node, boot) VALUES ($1, $2)", node, uuid4())
    retired = "INSERT INTO nodes (node, boot, retired_at) VALUES ($1, $2, now())"
    await owner_of_tables.execute(retired, other, uuid4())

    async def levels() -> list[Level]:
        store = await postgres.gather(database)
        assert isinstance(store, Facts)
        counters = await redis.gather(redis_url, [each.id for each in store.nodes])
        assert not isinstance(counters, str)
        found = record.judge_nodes(store.nodes, counters.lags_ms, now=await limiter.now())
        return [each.level for each in found]

    assert [Level.FAIL] == await levels()
    await limiter.vouch(node, lag_ms=3)
    assert [Level.FAIL] == await levels()
    await owner_of_tables.execute("UPDATE nodes SET eof_at = $1", await limiter.now())
    assert [Level.OK] == await levels()
    old = await limiter.now() - timedelta(seconds=61)
    await owner_of_tables.execute("UPDATE nodes SET eof_at = $1", old)
    assert [Level.FAIL] == await levels()


def test_no_node() -> None:
    """Without a node authz refuses everything."""
    assert [Level.FAIL] == [each.level for each in record.judge_nodes([], {}, now=NOW)]
    lag: dict[UUID, int | None] = {}
    node = Node(uuid4(), NOW)
    assert [Level.FAIL] == [each.level for each in record.judge_nodes([node], lag, now=NOW)]


async def test_clocks_that_disagree() -> None:
    """A clock more than a second ahead or behind is named, whichever it is; a slow answer is no skew."""

    async def ahead() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=1.5)

    store = await clocks.read("Postgres", ahead)
    assert [Level.FAIL] == [each.level for each in clocks.judge([clocks.HERE, store])]
    behind = Clock("Redis", -0.7, 0.0)
    found = clocks.judge([clocks.HERE, Clock("Postgres", 0.6, 0.0), behind])
    assert [Level.FAIL] == [each.level for each in found]
    assert "of Postgres is 1.3 s ahead of that of Redis" in found[0].sentence
    assert [Level.OK] == [each.level for each in clocks.judge([clocks.HERE, Clock("Redis", 1.4, 0.5)])]


@pytest.mark.usefixtures("outside")
def test_the_command_fails_without_a_gateway(capsys: pytest.CaptureFixture[str]) -> None:
    """Without Caddy, authz and metering the exit code is 1, and each says what to start."""
    assert 1 == run(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    failed = {each["check"] for each in report["findings"] if each["level"] == "fail"}
    assert {"caddy", "authz", "metering"} == failed
    assert not report["is_healthy"]
    assert 1 == run(["doctor"])
    assert "start Caddy and metering" in " ".join(capsys.readouterr().out.split())

"""After a restore the bill is what it was: from the backup, and from the journals that are still there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from attrs import define

from authz.__main__ import run
from authz.chains import books, checkpoint
from authz.chains.days import days_until
from authz.limiter.limiter import Limiter
from authz.nodes import LAG_MS
from authz.stack import embedded
from tests.metering.conftest import Begin, Service
from tests.metering.verifying import verified
from tests.metering.writing import KEY, NODE, JournalFile

TOKENS = 30


@define
class Backups:
    """Where a backup lies, and the databases before and after."""

    folder: Path
    environ: dict[str, str]
    monkeypatch: pytest.MonkeyPatch

    async def run(self, *arguments: str) -> int:
        """Run a command, which has an event loop of its own."""
        return await asyncio.to_thread(run, list(arguments))

    async def make(self) -> int:
        """Back up."""
        return await self.run("backup", "--to", str(self.folder))

    async def restore(self, database: str) -> int:
        """Restore into another database, which becomes that of every command."""
        self.monkeypatch.setenv("DATABASE_URL", database)
        return await self.run("restore", "--from", str(self.folder))


@pytest.fixture
def backups(tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Backups:
    """A folder for a backup of the test's database."""
    return Backups(tmp_path / "backup", environ, monkeypatch)


@pytest.fixture
async def empty(stores: Path, database: str) -> AsyncIterator[str]:
    """The URL of a database that is not there yet."""
    name = f"{database.partition('@/')[2].partition('?')[0]}_again"
    yield embedded.postgres_url(stores, name)
    maintenance = await asyncpg.connect(embedded.postgres_url(stores, "postgres"))
    await maintenance.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await maintenance.close()


async def _requests(database: str) -> list[tuple[UUID, int, int]]:
    connection = await asyncpg.connect(database)
    rows = await connection.fetch(
        "SELECT request_id, entry, input_tokens + output_tokens FROM ledger ORDER BY request_id, entry"
    )
    await connection.close()
    return [tuple(row) for row in rows]


async def _settled(service: Service) -> None:
    await service.beat(2)
    await service.end()


async def test_what_was_billed_since_is_settled_again(
    begin: Begin, journal: JournalFile, backups: Backups, empty: str, limiter: Limiter
) -> None:
    """The ledger is the truth again, each request once: before the backup, after it, and after the restore.

    A stream that was open when the backup was made, and has ended since, is settled by its record.
    """
    service = await begin()
    ids = [journal.request() for _ in range(3)]
    running = journal.new_id()
    journal.append(journal.opened(running))
    await service.beat(2)
    assert 0 == await backups.make()
    journal.append(journal.ended(running))
    ids += [journal.request() for _ in range(4)]
    journal.rotate()
    ids += [journal.request() for _ in range(2)]
    await _settled(service)
    async with books.opened(backups.environ["DATABASE_URL"]) as opened:
        signed = checkpoint.make(
            await opened.identity(), datetime.now(UTC) - timedelta(minutes=1), await days_until(opened)
        )
    truth = await _requests(backups.environ["DATABASE_URL"])
    assert sorted([*ids, running]) == [request for request, _, _ in truth]

    assert 0 == await backups.restore(empty)
    assert 3 == len(await _requests(empty))
    assert [] == (await verified(empty)).faults
    assert (await limiter.lag_ms(NODE) or 0) > LAG_MS, "budgets are open before all is settled again"
    ids.append(journal.request())
    again = await begin(database=empty)
    await _settled(again)

    settled = await _requests(empty)
    assert truth == settled[:-1]
    assert (ids[-1], 0, TOKENS) == settled[-1]
    await _compare_books(empty, again, tokens=TOKENS * len(settled))
    assert [] == (await verified(empty)).faults
    *_, fault = (await verified(empty, signed)).faults
    assert "what was settled again has links of its own; make a new checkpoint" in fault


async def _compare_books(database: str, service: Service, *, tokens: int) -> None:
    """Compare the windows with the sum, and with Redis, which knew later versions of them."""
    connection = await asyncpg.connect(database)
    used = await connection.fetch("SELECT DISTINCT used FROM budget_windows")
    await connection.close()
    assert [tokens] == [row["used"] for row in used]
    for field in ("t:t", f"{KEY}:t", f"{KEY}:d:{service.day}"):
        assert tokens == await service.used_in_redis(field)


async def test_what_is_in_no_journal_any_more_is_counted_as_lost(
    begin: Begin, journal: JournalFile, backups: Backups, empty: str
) -> None:
    """Lines between the backup and the loss whose file is gone are lost lines, by their numbers."""
    service = await begin()
    before = journal.request()
    await service.beat(2)
    assert 0 == await backups.make()
    lost = [journal.request() for _ in range(5)]
    await _settled(service)
    last = journal.seq - 1
    journal.path.unlink()
    journal.resume(last=last)
    after = journal.request()

    assert 0 == await backups.restore(empty)
    await _settled(await begin(database=empty))

    assert [before, after] == [request for request, _, _ in await _requests(empty)]
    connection = await asyncpg.connect(empty)
    assert 2 * len(lost) == await connection.fetchval("SELECT sum(lost)::int FROM journal_sequences")
    await connection.close()


async def test_a_backup_holds_no_pepper_and_says_where_journals_stood(
    begin: Begin, journal: JournalFile, backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys need the pepper, which is kept apart; no other user may read the rest."""
    pepper = Path(backups.environ["GATEWAY_STATE"]) / "pepper"
    pepper.write_text("ab" * 32)
    pepper.chmod(0o400)
    assert 0 == await backups.run("create-tenant", "--name", "acme")
    assert 0 == await backups.run("create-key", "--tenant", "acme", "--name", "first")
    capsys.readouterr()
    service = await begin()
    journal.request()
    await _settled(service)
    assert 0 == await backups.make()
    assert "The pepper is not" in capsys.readouterr().out
    assert {"database.dump", "backup.json"} == {path.name for path in backups.folder.iterdir()}
    assert {0o600} == {path.stat().st_mode & 0o777 for path in backups.folder.iterdir()}
    for path in backups.folder.iterdir():
        content = path.read_bytes()
        assert b"ab" * 32 not in content
        assert bytes.fromhex("ab" * 32) not in content
    described = json.loads((backups.folder / "backup.json").read_text())
    assert journal.path.stat().st_size == described["positions"][0]["position"]
    assert 1 == len(described["pepper_ids"])


async def test_a_restore_names_the_pepper_that_is_missing(
    backups: Backups, empty: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """All keys look right and none works without it: that must not be found out by clients."""
    pepper = Path(backups.environ["GATEWAY_STATE"]) / "pepper"
    pepper.write_text("ab" * 32)
    pepper.chmod(0o400)
    assert 0 == await backups.run("create-tenant", "--name", "acme")
    assert 0 == await backups.run("create-key", "--tenant", "acme", "--name", "first")
    assert 0 == await backups.make()
    pepper.chmod(0o600)
    pepper.write_text("cd" * 32)
    pepper.chmod(0o400)
    assert 0 == await backups.restore(empty)
    assert "put it there before the gateway starts" in capsys.readouterr().err


async def test_only_an_empty_database_is_restored_into(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there is never mixed with a backup, nor replaced."""
    assert 0 == await backups.make()
    assert 1 == await backups.restore(backups.environ["DATABASE_URL"])
    assert "restore into an empty one" in capsys.readouterr().err


async def test_a_database_in_use_is_not_restored_into(
    backups: Backups, empty: str, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A metering that goes on with what it remembers would settle past the restored positions."""
    assert 0 == await backups.make()
    maintenance = await asyncpg.connect(embedded.postgres_url(stores, "postgres"))
    name = empty.partition("@/")[2].partition("?")[0]
    await maintenance.execute(f"CREATE DATABASE {name}")
    await maintenance.close()
    other = await asyncpg.connect(empty)
    assert 1 == await backups.restore(empty)
    assert "stop authz and metering" in capsys.readouterr().err
    await other.close()


async def test_a_dump_that_fails_leaves_an_empty_folder(
    backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a dump is in nobody's way: the same command works once its cause is mended."""
    connection = await asyncpg.connect(backups.environ["DATABASE_URL"])
    async with connection.transaction():
        await connection.execute("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE")
        failing = asyncio.create_task(backups.make())
        while not await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE NOT granted AND "
            "relation = 'tenants'::regclass"
        ):
            await asyncio.sleep(0)
        assert 1 == await failing
    await connection.close()
    assert "pg_dump failed" in capsys.readouterr().err
    assert [] == list(backups.folder.iterdir())

    assert 0 == await backups.make()


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("database.dump", lambda old: old[:-1] + bytes([old[-1] ^ 1]), "is damaged"),
        ("backup.json", lambda old: old[:40], "can't be read"),
        (
            "backup.json",
            lambda old: old.replace(b'"migration": "2026', b'"migration": "2126'),
            "later release",
        ),
        ("backup.json", None, "no whole backup"),
    ],
)
async def test_a_backup_that_is_not_whole_is_refused(
    backups: Backups,
    empty: str,
    capsys: pytest.CaptureFixture[str],
    name: str,
    spoil: Callable[[bytes], bytes] | None,
    words: str,
) -> None:
    """Before anything is made: a backup is whole, of this release or an earlier one, or not taken."""
    assert 0 == await backups.make()
    path = backups.folder / name
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil(path.read_bytes()))
    assert 1 == await backups.restore(empty)
    assert words in capsys.readouterr().err
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(empty)


async def test_a_folder_holds_one_backup(backups: Backups, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one into the same folder is refused, and the first stays whole."""
    assert 0 == await backups.make()
    before = (backups.folder / "database.dump").read_bytes()
    assert 1 == await backups.make()
    assert "is not empty" in capsys.readouterr().err
    assert before == (backups.folder / "database.dump").read_bytes()


async def test_a_backup_needs_the_client_programs(
    backups: Backups, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the wheel and without PostgreSQL on the PATH it says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _package: None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert 1 == await backups.make()
    assert "There is no pg_dump: run" in capsys.readouterr().err
    assert not backups.folder.exists()

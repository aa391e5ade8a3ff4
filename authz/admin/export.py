"""The ledger as a file: the same rows are the same bytes, and a proof apart says that they are whole."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sys
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path  # noqa: TC003 (cyclopts reads it)
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import attrs
import msgspec
from attrs import define, field, frozen
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import sql
from authz.accounts.session import opened
from authz.accounts.tenants import find_tenant
from authz.admin.limit_options import moment
from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from uuid import UUID

    from authz.accounts.session import Session

ROWS_AT_ONCE: Final = 1000

_NAMED: Final = {"tenant": "tenant_id", "key": "key_id"}

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

_queries = sql.load("usage")


class Format(StrEnum):
    """How a row is written."""

    JSONL = "jsonl"
    CSV = "csv"


class ReaderGone(Exception):
    """Whoever read the export wants no more of it."""


@frozen
class Proof:
    """What an export is checked by: its rows, the SHA-256 of its bytes, and what the ledger lacks.

    lost_lines and dead_letters are journal lines of the whole installation that never came, or that were
    not understood and are not replayed: with both 0 the ledger lacks nothing.
    """

    rows: int
    sha256: str
    lost_lines: int
    dead_letters: int


@define
class Sheet:
    """Writes rows, and counts and digests what it has written."""

    format: Format
    _out: BinaryIO
    rows: int = 0
    _names: Mapping[UUID, str] = field(factory=dict)
    _digest: Any = field(factory=hashlib.sha256)

    def begin(self, columns: Sequence[str], names: Mapping[UUID, str]) -> None:
        """Write the head of a CSV, also of one without rows; names are those of tenants and keys."""
        self._names = names
        if self.format is Format.CSV:
            self._write(_csv([[*columns, *_NAMED]]))

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows, with the names of tenant and key at their end."""
        self.rows += len(rows)
        named = [dict(row) | {to: self._names.get(row[id_]) for to, id_ in _NAMED.items()} for row in rows]
        if self.format is Format.JSONL:
            self._write(b"".join(msgspec.json.encode(row) + b"\n" for row in named))
        else:
            self._write(_csv([cell(value) for value in row.values()] for row in named))

    def proof(self, losses: Mapping[str, int]) -> Proof:
        """Return how many rows were written, their SHA-256, and what no row can say."""
        return Proof(self.rows, self._digest.hexdigest(), losses["lost_lines"], losses["dead_letters"])

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        try:
            self._out.write(data)
            self._out.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise CommandError(f"The export can't be written: {error.strerror}.") from error


async def export(
    session: Session,
    sheet: Sheet,
    *,
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> AsyncIterator[int | Proof]:
    """Write the ledger from since until before until, or now.

    Page by page and day by day, each in a moment: a snapshot held for an hour would keep Postgres from
    clearing away what every settlement leaves behind. Yields how many rows are written, again and again,
    and the proof at last.
    """
    async with session.store.connection() as connection:
        owner = None if tenant is None else (await find_tenant(connection, tenant))["id"]
        prepared = await connection.prepare(_queries.ledger_rows.sql)
        names = {row["id"]: row["name"] async for row in _queries.ledger_names(connection)}
        sheet.begin([column.name for column in prepared.get_attributes()], names)
        days = [row async for row in _queries.ledger_days(connection, since=since, until=until)]
        for first, end in days:
            after, entry = first, -1
            while rows := [
                row
                async for row in _queries.ledger_rows(
                    connection, tenant=owner, after=after, entry=entry, end=end, count=ROWS_AT_ONCE
                )
            ]:
                sheet.add(rows)
                after, entry = rows[-1]["request_id"], rows[-1]["entry"]
                yield sheet.rows
        losses = await _queries.losses(connection)
    yield sheet.proof(losses)


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def cell(value: object) -> object:
    """Return a value as a spreadsheet reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    # A client chooses the model's name and the path: a spreadsheet must not take them for a formula.
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


async def export_command(
    *,
    format_: Annotated[Format, Parameter(name="--format", help="JSON objects or CSV.")] = Format.JSONL,
    since: Annotated[str | None, Parameter(help="From when on: a date, a time, or a span like 7d.")] = None,
    until: Annotated[str | None, Parameter(help="Before when, likewise.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only this tenant.")] = None,
    state: Annotated[Path | None, Parameter(help="The stack's folder.")] = None,
) -> int:
    """Write the ledger to stdout, and to stderr one line of JSON that proves it: rows, SHA-256, losses."""
    now = datetime.now(UTC)
    start, end = (None if text is None else moment(text, now, is_past=True) for text in (since, until))
    sheet = Sheet(format_, sys.stdout.buffer)
    try:
        async with opened(state) as session:
            with _progress() as progress:
                task = progress.add_task("", total=None)
                async for step in export(session, sheet, tenant=tenant, since=start, until=end):
                    if isinstance(step, int):
                        progress.update(task, completed=step)
                    else:
                        progress.stop()
                        sys.stderr.write(msgspec.json.encode(attrs.asdict(step)).decode() + "\n")
    except ReaderGone:
        # What is still buffered would be complained about when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

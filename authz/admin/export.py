"""The ledger as a file: the same rows are the same bytes, and a footer proves that they are whole."""

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

import msgspec
from attrs import define, field
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

    from authz.accounts.session import Session

ROWS_AT_ONCE: Final = 1000

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

_queries = sql.load("admin")


class Format(StrEnum):
    """How a row is written."""

    JSONL = "jsonl"
    CSV = "csv"


class ReaderGone(Exception):
    """Whoever read the export wants no more of it."""


@define
class Sheet:
    """Writes rows, and counts and digests what it has written."""

    format: Format
    _out: BinaryIO
    rows: int = 0
    _digest: Any = field(factory=hashlib.sha256)
    _has_head: bool = False

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows; the first brings the head of a CSV."""
        self.rows += len(rows)
        if self.format is Format.JSONL:
            self._write(b"".join(msgspec.json.encode(dict(row)) + b"\n" for row in rows))
            return
        if rows and not self._has_head:
            self._has_head = True
            self._write(_csv([list(rows[0].keys())]))
        self._write(_csv([_cell(value) for value in row.values()] for row in rows))

    def end(self) -> None:
        """Write the footer: how many rows there are, and the SHA-256 of every byte before it."""
        digest = self._digest.hexdigest()
        footer = f"# rows={self.rows} sha256={digest}\n"
        if self.format is Format.JSONL:
            footer = f'{{"rows":{self.rows},"sha256":"{digest}"}}\n'
        self._write(footer.encode())

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
) -> AsyncIterator[int]:
    """Write the ledger from since until before until, in one snapshot; yields how many rows are written."""
    async with session.store.connection() as connection:
        owner = None if tenant is None else (await find_tenant(connection, tenant))["id"]
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await _queries.walk_in_order(connection)
            found = _queries.ledger_rows_cursor(connection, tenant=owner, since=since, until=until)
            async with found as factory:
                cursor = await factory
                while rows := await cursor.fetch(ROWS_AT_ONCE):
                    sheet.add(rows)
                    yield sheet.rows
    sheet.end()


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
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
    """Write the ledger to stdout, ended by a line with the count and the SHA-256 of all before it."""
    now = datetime.now(UTC)
    start, end = (None if text is None else moment(text, now, is_past=True) for text in (since, until))
    sheet = Sheet(format_, sys.stdout.buffer)
    try:
        async with opened(state) as session:
            with _progress() as progress:
                task = progress.add_task("", total=None)
                async for rows in export(session, sheet, tenant=tenant, since=start, until=end):
                    progress.update(task, completed=rows)
    except ReaderGone:
        # What is still buffered would be complained about when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

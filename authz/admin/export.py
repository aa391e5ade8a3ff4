"""The ledger as a file: the same rows are the same bytes, and a proof apart says that they are whole."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 (cyclopts reads it)
from typing import TYPE_CHECKING, Annotated, Any, Final

import attrs
import msgspec
from attrs import define, field, frozen
from cyclopts import Parameter
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import sql
from authz.accounts.session import opened
from authz.accounts.tenants import find_tenant
from authz.admin import sheets
from authz.admin import watermark as watermarks
from authz.admin.period import Period, parse
from authz.admin.sheets import Column, Format, Output, ReaderGone
from authz.admin.watermark import ROWS_AT_ONCE, Watermark
from authz.errors import CommandError, UsageError
from authz.stack.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from uuid import UUID

    from authz.accounts.session import Session
    from authz.admin.sheets import Sheet

EVER: Final = Period()

_NAMED: Final = {"tenant": "tenant_id", "key": "key_id"}

_queries = sql.load("usage")


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


@frozen
class Wanted:
    """Which rows are exported: a tenant's and a period's; or those added since the last export, if any."""

    tenant: str | None = None
    period: Period = EVER
    is_continued: bool = False
    before: Watermark | None = None


@define
class Export:
    """One run of an export, and what is known when it is over."""

    session: Session
    format: Format
    output: Output
    wanted: Wanted = field(factory=Wanted)
    rows: int = 0
    watermark: Watermark | None = None
    proof: Proof | None = None
    _names: Mapping[UUID, str] = field(factory=dict)

    async def run(self) -> AsyncIterator[int]:
        """Write the rows, and yield how many are written, again and again.

        Page by page and day by day, each in a moment: a snapshot held for an hour would keep Postgres from
        clearing away what every settlement leaves behind.
        """
        async with self.session.store.connection() as connection:
            tenant = self.wanted.tenant
            owner = None if tenant is None else (await find_tenant(connection, tenant))["id"]
            prepared = await connection.prepare(_queries.ledger_rows.sql)
            columns = [Column(each.name, each.type.name) for each in prepared.get_attributes()]
            self._names = {row["id"]: row["name"] async for row in _queries.ledger_names(connection)}
            sheet = sheets.begin(
                self.format, self.output, [*columns, *(Column(name, "text") for name in _NAMED)]
            )
            pages = (
                self._added(connection, owner) if self.wanted.is_continued else self._all(connection, owner)
            )
            async for page in pages:
                self._write(sheet, page)
                yield self.rows
            sheet.end()
            losses = await _queries.losses(connection)
        self.proof = Proof(self.rows, self.output.sha256, losses["lost_lines"], losses["dead_letters"])

    async def _all(self, connection: Any, owner: UUID | None) -> AsyncIterator[Sequence[Any]]:
        """Yield pages of the ledger in the order of its ids."""
        first_day, last_day = self.wanted.period.days
        since, until = self.wanted.period.moments
        days = [row async for row in _queries.ledger_days(connection, since=since, until=until)]
        for after, end in days:
            place = {"after": after, "entry": -1}
            while page := [
                row
                async for row in _queries.ledger_rows(
                    connection,
                    tenant=owner,
                    since=first_day,
                    until=last_day,
                    end=end,
                    count=ROWS_AT_ONCE,
                    **place,
                )
            ]:
                yield page
                place = {"after": page[-1]["request_id"], "entry": page[-1]["entry"]}

    async def _added(self, connection: Any, owner: UUID | None) -> AsyncIterator[Sequence[Any]]:
        """Yield pages of what was added since the last export, in the order in which it was added."""
        parts, reached = await watermarks.since(connection, self.wanted.before)
        for part in parts:
            async for page in watermarks.added(connection, part):
                yield [row for row in page if owner is None or row["tenant_id"] == owner]
        self.watermark = reached

    def _write(self, sheet: Sheet, page: Sequence[Any]) -> None:
        """Write rows with the names of tenant and key at their end."""
        self.rows += len(page)
        sheet.add([dict(row) | {to: self._names.get(row[id_]) for to, id_ in _NAMED.items()} for row in page])


async def export_command(
    *,
    format_: Annotated[
        Format, Parameter(name="--format", help="JSON objects, CSV or Parquet.")
    ] = Format.JSONL,
    since: Annotated[
        str | None, Parameter(help="From when on: a date (of the tenant's), a time, or a span like 7d.")
    ] = None,
    until: Annotated[str | None, Parameter(help="Before when, likewise.")] = None,
    tenant: Annotated[str | None, Parameter(help="Only this tenant.")] = None,
    to: Annotated[Path | None, Parameter(help="File to write, whole or not at all; else stdout.")] = None,
    proof: Annotated[Path | None, Parameter(help="File for the proof, as JSON; else stderr.")] = None,
    watermark: Annotated[
        Path | None, Parameter(help="Write what was added since the run that left this file, and renew it.")
    ] = None,
    state: Annotated[Path | None, Parameter(help="The stack's folder.")] = None,
) -> int:
    """Write the ledger as a file for other programs, and what proves it apart: rows, SHA-256, losses.

    Example: neuronetz-gateway usage export --format parquet --to new.parquet --watermark ledger.watermark
    """
    if watermark and (since or until):
        raise UsageError("--watermark continues the last export: leave out --since and --until.")
    period = parse(since, until, datetime.now(UTC))
    before = None if watermark is None else Watermark.read(watermark)
    wanted = Wanted(tenant, period, is_continued=watermark is not None, before=before)
    try:
        async with opened(state) as session:
            with _output(to) as output:
                done = Export(session, format_, output, wanted)
                await _run(done)
    except ReaderGone:
        # What is still buffered would be complained about when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    _prove(done.proof, proof)
    if watermark and done.watermark:
        done.watermark.write(watermark)
    return 0


async def _run(export: Export) -> None:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} rows"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        async for rows in export.run():
            progress.update(task, completed=rows)


@contextmanager
def _output(path: Path | None) -> Iterator[Output]:
    """Open stdout, or a file that takes its name when it is whole. Raises CommandError."""
    if path is None:
        yield Output(sys.stdout.buffer)
        return
    attempt = path.with_name(f"{path.name}.part")
    try:
        with attempt.open("wb") as file:
            yield Output(file)
            os.fsync(file.fileno())
        attempt.rename(path)
    except OSError as error:
        raise CommandError(f"--to {path} can't be written: {error.strerror}.") from error
    finally:
        attempt.unlink(missing_ok=True)


def _prove(proof: Proof | None, path: Path | None) -> None:
    line = msgspec.json.encode(attrs.asdict(proof)) + b"\n" if proof else b""
    if path is None:
        sys.stderr.write(line.decode())
        return
    try:
        write_atomically(path, line, mode=0o644)
    except OSError as error:
        raise CommandError(f"--proof {path} can't be written: {error.strerror}.") from error

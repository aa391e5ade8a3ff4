"""The ledger as a file: complete, in order, the same bytes every time."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from pyarrow import parquet

from authz.__main__ import run
from authz.accounts.keys import create_key
from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.admin.export import Export, Proof, Wanted
from authz.admin.period import Period
from authz.admin.sheets import Format, Output, ReaderGone
from authz.admin.watermark import ROWS_AT_ONCE
from authz.errors import CommandError
from authz.types import Identity
from metering.rows import LedgerRow
from tests.authz.asking import BOOT, NODE
from tests.authz.billing import START, Book, served

COLUMNS = [
    *(name for name in LedgerRow._fields if name != "end_user"),
    *("address_id", "end_user_id", "address", "end_user", "tenant", "key"),
]


async def exported(
    session: Session, format_: Format = Format.JSONL, wanted: Wanted = Wanted()
) -> tuple[bytes, Proof | None]:
    """What an export writes, and its proof."""
    out = io.BytesIO()
    export = Export(session, format_, Output(out), wanted)
    async for _ in export.run():
        pass
    return out.getvalue(), export.proof


async def test_every_row_is_exported_in_order(session: Session, filled: Book) -> None:
    """JSONL has one object a row, with every column of the ledger and two names, by request id and entry."""
    written, _ = await exported(session)
    rows = [json.loads(line) for line in written.splitlines()]
    expected = sorted((str(row.request_id), row.entry) for row in filled.rows)
    assert expected == [(row["request_id"], row["entry"]) for row in rows]
    assert COLUMNS == list(rows[0])
    assert {("acme", "first")} == {(row["tenant"], row["key"]) for row in rows}
    assert (10, 20, "llama3.2", "2026-11-24T23:59:00Z") == tuple(
        rows[0][name] for name in ("input_tokens", "output_tokens", "model", "at")
    )


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("format_", Format)
async def test_the_proof_stands_apart(session: Session, format_: Format) -> None:
    """It has the number of rows and the SHA-256 of all that was written; no reader meets it in the file."""
    written, proof = await exported(session, format_)
    assert Proof(6, hashlib.sha256(written).hexdigest(), lost_lines=0, dead_letters=0) == proof


@pytest.mark.usefixtures("filled")
async def test_the_proof_counts_what_the_ledger_lacks(
    session: Session, owner_of_tables: asyncpg.Connection
) -> None:
    """Journal lines that were lost, or not understood and not replayed, are in no row: the proof says so."""
    await owner_of_tables.execute(
        "INSERT INTO journal_sequences (node, boot, next, lost) VALUES ($1, $1, 9, 2), ($1, $2, 9, 3)",
        NODE,
        BOOT,
    )
    await owner_of_tables.execute(
        "INSERT INTO dead_letters (node, fingerprint, generation, position, length, sha256, reason, raw, "
        "replayed_at) VALUES ($1, '', 0, 1, 1, '', 'r', '', NULL), ($1, '', 0, 2, 1, '', 'r', '', now())",
        NODE,
    )
    _, proof = await exported(session)
    assert isinstance(proof, Proof)
    assert (5, 1) == (proof.lost_lines, proof.dead_letters)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("format_", Format)
async def test_an_export_is_the_same_bytes_again(session: Session, format_: Format) -> None:
    """Nothing in a file depends on when or how often it was written."""
    assert await exported(session, format_) == await exported(session, format_)


@pytest.mark.usefixtures("filled")
async def test_csv_is_no_program(session: Session) -> None:
    """A CSV has a head, dates as ISO 8601, and nothing a spreadsheet would run: clients choose names."""
    written, _ = await exported(session, Format.CSV)
    rows = list(csv.DictReader(written.decode().splitlines()))
    assert 6 == len(rows)
    assert ("2026-11-24T23:59:00+00:00", "llama3.2", "10", "") == tuple(
        rows[0][name] for name in ("at", "model", "input_tokens", "reason")
    )
    assert ("'=1+1", "-3") == (rows[5]["model"], rows[5]["input_tokens"])


async def test_an_export_of_nothing_is_whole(session: Session) -> None:
    """No row is an answer, too: a CSV has its head, a JSONL nothing, and both their proof."""
    written, proof = await exported(session)
    assert (b"", Proof(0, hashlib.sha256().hexdigest(), 0, 0)) == (written, proof)
    written, _ = await exported(session, Format.CSV)
    assert COLUMNS == written.decode().strip().split(",")


@pytest.mark.usefixtures("filled")
async def test_an_export_can_be_a_part(session: Session) -> None:
    """since is included, until is not, and a tenant's export has no row of another's."""
    await create_tenant(session, "zeta")
    await create_key(session, tenant="zeta", name="third")
    one, four = START + timedelta(minutes=1), START + timedelta(minutes=4)
    periods = [Period(one), Period(None, four), Period(one, four)]
    found = [await exported(session, wanted=Wanted(period=period)) for period in periods]
    assert [5, 4, 3] == [len(written.splitlines()) for written, _ in found]
    found = [await exported(session, wanted=Wanted(tenant=name)) for name in ("acme", "zeta")]
    assert [6, 0] == [len(written.splitlines()) for written, _ in found]


async def test_a_date_is_the_tenants_day(session: Session, book: Book, owner: Identity) -> None:
    """Exported by dates, a month has the rows whose budget of the month paid, as a statement has."""
    await set_tenant_limits(session, "acme", limits=lambda old: old, timezone="Pacific/Auckland")
    rows = []
    for number in range(96):  # an hour each, over the midnights of UTC and of Auckland
        at = datetime(2026, 11, 29, tzinfo=UTC) + timedelta(hours=number)
        day = at.astimezone(ZoneInfo("Pacific/Auckland")).date()
        rows.append(served(owner, at, day=day, month=day.replace(day=1)))
    await book.add(*rows)
    for month in (date(2026, 11, 1), date(2026, 12, 1)):
        period = Period(month, (month + timedelta(days=31)).replace(day=1))
        written, _ = await exported(session, wanted=Wanted(period=period))
        assert [str(row.request_id) for row in rows if row.month == month] == [
            json.loads(line)["request_id"] for line in written.splitlines()
        ]


async def test_an_export_holds_few_rows_at_once(session: Session, book: Book, owner: Identity) -> None:
    """Rows come page by page, so memory is that of some rows however long the ledger is."""
    await book.add(*(served(owner, START) for _ in range(2 * ROWS_AT_ONCE + 1)))
    steps = [rows async for rows in Export(session, Format.JSONL, Output(io.BytesIO())).run()]
    assert [ROWS_AT_ONCE, 2 * ROWS_AT_ONCE, 2 * ROWS_AT_ONCE + 1] == steps


async def test_an_export_holds_no_snapshot(session: Session, book: Book, owner: Identity) -> None:
    """However long it takes, Postgres may clear away what settlements leave behind meanwhile."""
    await book.add(*(served(owner, START) for _ in range(ROWS_AT_ONCE + 1)))
    held = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND (backend_xmin IS NOT NULL OR state LIKE 'idle in%') AND pid <> pg_backend_pid()"
    )
    async for _ in Export(session, Format.JSONL, Output(io.BytesIO())).run():
        assert 0 == await book.owner.fetchval(held)


class Pipe(io.BytesIO):
    """A stream that fails when it is written to."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, _data: object) -> int:
        """Fail."""
        raise self.error


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BrokenPipeError(32, "Broken pipe"), ReaderGone),
        (OSError(28, "No space left on device"), CommandError),
    ],
)
async def test_a_stream_that_fails_is_not_the_store(
    session: Session, error: OSError, said: type[Exception]
) -> None:
    """Whoever leaves ends the export quietly; a full disk is said."""
    with pytest.raises(said):
        await anext(Export(session, Format.JSONL, Output(Pipe(error))).run())


@pytest.fixture
async def long(book: Book, owner: Identity) -> Book:
    """More rows than a pipe holds."""
    await book.add(*(served(owner, START) for _ in range(2000)))
    return book


@pytest.mark.usefixtures("outside", "long")
def test_a_reader_may_leave() -> None:
    """`usage export | head -1` ends quietly: no trace, no error."""
    argv = [sys.executable, "-m", "authz", "usage", "export"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        assert (b"", 0) == (process.stderr.read(), process.wait())


@pytest.mark.usefixtures("outside", "long")
def test_the_proof_is_one_line_of_stderr() -> None:
    """`usage export > file` leaves the file to its readers: what proves it is written beside it."""
    argv = [sys.executable, "-m", "authz", "usage", "export", "--format", "csv"]
    done = subprocess.run(argv, capture_output=True, check=True)
    (line,) = done.stderr.splitlines()
    assert {
        "rows": 2000,
        "sha256": hashlib.sha256(done.stdout).hexdigest(),
        "lost_lines": 0,
        "dead_letters": 0,
    } == json.loads(line)
    assert 2001 == len(done.stdout.splitlines())


@pytest.mark.usefixtures("filled")
async def test_parquet_has_types(session: Session, filled: Book) -> None:
    """A reader of Parquet gets the ledger's rows as numbers, times, dates and texts, and null for nothing."""
    written, proof = await exported(session, Format.PARQUET)
    rows = parquet.read_table(io.BytesIO(written)).to_pylist()
    assert proof
    assert (6, hashlib.sha256(written).hexdigest()) == (len(rows), proof.sha256)
    lines, _ = await exported(session)
    for row, line in zip(rows, lines.splitlines(), strict=True):
        text = json.loads(line)
        assert {**row, "at": None} == {**text, "at": None}
        assert row["at"] == datetime.fromisoformat(text["at"])
    assert sum(row.tokens for row in filled.rows) == sum(
        row["input_tokens"] + row["output_tokens"] for row in rows
    )


async def test_parquet_without_rows_is_a_file(session: Session) -> None:
    """A table without rows has its columns all the same."""
    written, _ = await exported(session, Format.PARQUET)
    table = parquet.read_table(io.BytesIO(written))
    assert (0, COLUMNS) == (table.num_rows, table.column_names)


@pytest.mark.usefixtures("outside", "filled")
def test_the_command_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--to, --proof and --watermark name files; the second run has no row, and nothing of a part is left."""
    folder = tmp_path / "exports"
    folder.mkdir()
    names = [folder / name for name in ("ledger.parquet", "proof.json", "mark")]
    options = [f"--{option}={name}" for option, name in zip(("to", "proof", "watermark"), names, strict=True)]
    for rows in (6, 0):
        assert 0 == run(["usage", "export", "--format", "parquet", *options])
        assert rows == parquet.read_table(names[0]).num_rows
        proof = json.loads(names[1].read_text())
        assert (rows, hashlib.sha256(names[0].read_bytes()).hexdigest()) == (proof["rows"], proof["sha256"])
    assert sorted(names) == sorted(folder.iterdir())
    assert ("", "") == capsys.readouterr()


@pytest.mark.usefixtures("outside", "filled")
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without pyarrow the sentence says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 1 == run(["usage", "export", "--format", "parquet"])
    assert "run `pip install 'neuronetz-gateway[parquet]'`" in capsys.readouterr().err

"""The files that an export can be: JSON lines, CSV, Parquet."""

from __future__ import annotations

import csv
import hashlib
import io
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol

import msgspec
from attrs import define, frozen

from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

ROW_GROUP: Final = 65_536
"""Rows that a reader of Parquet takes at once."""


class Format(StrEnum):
    """How a row is written."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class ReaderGone(Exception):
    """Whoever read the export wants no more of it."""


@frozen
class Column:
    """A column of an export, and what Postgres calls its type."""

    name: str
    type: str


class Output(io.RawIOBase):
    """Writes bytes to a stream that stays open, and digests them."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes. Raises ReaderGone, or CommandError where they can't be written."""
        self._digest.update(data)
        try:
            self._out.write(data)
            self._out.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise CommandError(f"The export can't be written: {error.strerror}.") from error
        return len(data)

    @property
    def sha256(self) -> str:
        """The digest of all that was written."""
        return str(self._digest.hexdigest())


class Sheet(Protocol):
    """Writes rows of the same columns."""

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows."""

    def end(self) -> None:
        """Write what is left, and what the file ends with."""


def begin(format_: Format, output: Output, columns: Sequence[Column]) -> Sheet:
    """Begin a file of a format. Raises CommandError where a library is missing for it."""
    if format_ is Format.JSONL:
        return JsonLines(output)
    return Csv(output, columns) if format_ is Format.CSV else Parquet(output, columns)


@define
class JsonLines:
    """An object a line, without a head."""

    _output: Output

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows."""
        self._output.write(b"".join(msgspec.json.encode(dict(row)) + b"\n" for row in rows))

    def end(self) -> None:
        """Do nothing: every line ends itself."""


class Csv:
    """A head, also without rows, then a record a row."""

    def __init__(self, output: Output, columns: Sequence[Column]) -> None:
        self._output = output
        output.write(_csv([[column.name for column in columns]]))

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows."""
        self._output.write(_csv([cell(value) for value in row.values()] for row in rows))

    def end(self) -> None:
        """Do nothing: every record ends itself."""


class Parquet:
    """Columns with types: whole numbers of 64 bits, times in UTC, dates, texts."""

    def __init__(self, output: Output, columns: Sequence[Column]) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415 (50 MB that only this needs)
            from pyarrow import parquet  # noqa: PLC0415
        except ImportError as error:
            sentence = (
                "Parquet needs the library pyarrow, which is not installed: "
                "run `pip install 'neuronetz-gateway[parquet]'`, or take --format jsonl or csv."
            )
            raise CommandError(sentence) from error
        types = {
            "bool": pa.bool_(),
            "date": pa.date32(),
            "float4": pa.float64(),
            "float8": pa.float64(),
            "int2": pa.int64(),
            "int4": pa.int64(),
            "int8": pa.int64(),
            "timestamptz": pa.timestamp("us", tz="UTC"),
        }
        self._arrow = pa
        self._texts = frozenset(column.name for column in columns if column.type not in types)
        self._schema = pa.schema([(column.name, types.get(column.type, pa.string())) for column in columns])
        self._writer = parquet.ParquetWriter(output, self._schema, compression="zstd")
        self._batches: list[Any] = []

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep some rows, and write them when they are enough for a group."""
        columns = {
            name: [
                str(row[name]) if name in self._texts and row[name] is not None else row[name] for row in rows
            ]
            for name in self._schema.names
        }
        self._batches.append(self._arrow.RecordBatch.from_pydict(columns, schema=self._schema))
        if sum(batch.num_rows for batch in self._batches) >= ROW_GROUP:
            self._write()

    def end(self) -> None:
        """Write the rows that are left, and the footer."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._batches:
            self._writer.write_table(self._arrow.Table.from_batches(self._batches), row_group_size=ROW_GROUP)
            self._batches = []


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

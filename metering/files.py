"""The journal's files on disk, oldest first: older ones, plain or compressed, then the active one.

A file is the journal's for what is in it, whatever an operator calls it; only those that bear the name
of a rotated file are ever removed.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import struct
import sys
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from attrs import define, field, frozen

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from metering.journal import GLUE
from metering.rows import WINDOW_BYTES, Mark

if TYPE_CHECKING:
    from pathlib import Path

PREFIX_BYTES: Final = 65_536
"""A first line longer than this is recognised by its beginning."""


# A compressed file may be cut short or be none at all.
_UNREADABLE: Final = (EOFError, OSError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)


@frozen
class Identity:
    """A file as the kernel knows it; unchanged means unread bytes can't have come."""

    device: int
    inode: int
    size: int
    modified_ns: int

    def is_same_file(self, other: Identity) -> bool:
        """Return whether both are one file, at whatever length."""
        return (self.device, self.inode) == (other.device, other.inode)


@define
class _Unpacked:
    """Reads a decompressor at positions; going back within the last block costs nothing."""

    _stream: gzip.GzipFile | zstd.ZstdFile
    _start: int = 0
    _block: bytes = b""

    def read(self, position: int, length: int) -> bytes:
        """Bytes from a position on; fewer than asked for at the end, also where the file is broken."""
        if not self._start <= position <= self._start + len(self._block):
            self._start, self._block = position, b""
            try:
                self._stream.seek(position)
            except _UNREADABLE:
                return b""
        kept = self._block[position - self._start :]
        self._start, self._block = position, kept + self._more(length - len(kept))
        return self._block[:length]

    def _more(self, length: int) -> bytes:
        pieces = []
        try:
            while length > 0 and (piece := self._stream.read1(length)):
                pieces.append(piece)
                length -= len(piece)
        except _UNREADABLE:
            pass
        return b"".join(pieces)


@define
class OpenFile:
    """One journal file, open for reading; it stays readable when it is renamed or removed."""

    path: Path
    identity: Identity
    _raw: BinaryIO = field(repr=False)
    _unpacked: _Unpacked | None = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> OpenFile:
        """Open a file, decompressing by its name. Raises FileNotFoundError if it was removed meanwhile."""
        raw = cast("BinaryIO", path.open("rb", buffering=0))
        unpacked = None
        if path.suffix == ".gz":
            unpacked = _Unpacked(gzip.GzipFile(fileobj=raw))
        elif path.suffix == ".zst":
            unpacked = _Unpacked(zstd.ZstdFile(raw))
        return cls(path, _identity(os.fstat(raw.fileno())), raw, unpacked)

    @property
    def is_compressed(self) -> bool:
        """Return whether the file can only be read from front to back."""
        return self._unpacked is not None

    def read(self, position: int, length: int) -> bytes:
        """Bytes from a position on; fewer than asked for means the end of what is there."""
        if self._unpacked is not None:
            return self._unpacked.read(position, length)
        self._raw.seek(position)
        return self._raw.read(length)

    def fingerprint(self, *, is_final: bool) -> bytes | None:
        """SHA-256 of the first line; None while that is not whole and may still grow."""
        data = self.read(0, PREFIX_BYTES)
        end = data.find(b"\n")
        if end < 0 and len(data) < PREFIX_BYTES and not (is_final and data):
            return None
        return hashlib.sha256(data if end < 0 else data[:end]).digest()

    def is_of_node(self, node: str) -> bool:
        """Return whether its first line is one of a node's journal."""
        head = self.read(0, PREFIX_BYTES).lstrip()
        return head.startswith(GLUE) and f'"node":"{node}"'.encode() in head.partition(b"\n")[0]

    def marker(self, position: int) -> bytes:
        """Return the marker of a position."""
        window = min(position, WINDOW_BYTES)
        return hashlib.sha256(self.read(position - window, window)).digest()

    def holds(self, mark: Mark) -> bool:
        """Return whether the content before the mark is what had been read when the mark was made."""
        return mark.is_after(self.read(mark.position - mark.window_bytes, mark.window_bytes))

    def ends_at(self, position: int) -> bool:
        """Return whether a position is the end."""
        return not self.read(position, 1)

    def is_gzip_of(self, length: int) -> bool:
        """Return whether the trailer of a .gz gives so many bytes unpacked (modulo 2^32)."""
        # Saves unpacking every old file at each start; RFC 1952, section 2.3.1.
        if self.path.suffix != ".gz":
            return False
        with self.path.open("rb") as raw:
            raw.seek(max(0, self.identity.size - 4))
            return raw.read(4) == struct.pack("<I", length % 2**32)

    def current_identity(self) -> Identity:
        """Return the file as it is now, under any name."""
        return _identity(os.fstat(self._raw.fileno()))

    def close(self) -> None:
        """Close it."""
        self._raw.close()


def rotated(active: Path) -> list[Path]:
    """List the rotated files of a journal, oldest first; a plain file before its compressed copy."""
    pattern = _rotated(active)
    found = [(match, entry) for entry in _beside(active) if (match := pattern.fullmatch(entry.name))]
    found.sort(key=lambda pair: (pair[0][1], pair[1].name))
    return [entry for _, entry in found]


def older(active: Path) -> list[Path]:
    """List the files that may hold older lines of a journal, oldest first.

    The rotated ones, by the time in their name; among them, by the time when they were last written to,
    those that were moved away or copied by hand. Not every one of these needs be a journal.
    """
    pattern = _rotated(active)
    found: list[tuple[str, str, Path]] = []
    for entry in _beside(active):
        if match := pattern.fullmatch(entry.name):
            found.append((match[1], entry.name, entry))
        elif _may_be_moved(entry, active) and (identity := identify(entry)) is not None:
            written_at = datetime.fromtimestamp(identity.modified_ns / 10**9, UTC)
            found.append((f"{written_at:%Y-%m-%dT%H-%M-%S.%f}", entry.name, entry))
    return [entry for _, _, entry in sorted(found)]


def is_rotated(path: Path, active: Path) -> bool:
    """Return whether a file has the name of a rotated one."""
    return _rotated(active).fullmatch(path.name) is not None


def _beside(active: Path) -> list[Path]:
    """List the files of its folder; a folder or a pipe is none, whatever its name."""
    try:
        return [entry for entry in active.parent.iterdir() if entry.is_file()]
    except FileNotFoundError:
        return []


def _rotated(active: Path) -> re.Pattern[str]:
    return re.compile(
        rf"{re.escape(active.stem)}-(\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d[.\d]*)(?:-[\w.-]*)?"
        rf"{re.escape(active.suffix)}(\.gz|\.zst)?"
    )


def _may_be_moved(entry: Path, active: Path) -> bool:
    """Return whether a file of another name may be a journal: no companion of it, no half-written one."""
    own = (active.name, "node", f"{active.name}.lock")
    return entry.name not in own and entry.suffix not in {".new", ".tmp"}


def identify(path: Path) -> Identity | None:
    """Return a path's file right now; None if there is none."""
    try:
        return _identity(path.stat())
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

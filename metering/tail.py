"""Follow a journal: every line of every file once, in order, from where the marks say.

Files are polled, not watched: reading at the end of a file costs less than a microsecond and works
on every file system. A tail believes that what it hands out gets committed; if a commit fails,
throw it away and begin again from the marks in Postgres.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from attrs import define, evolve, field, frozen

from metering.files import OpenFile, identify, is_rotated, older, rotated
from metering.journal import GLUE, RAW_BYTES
from metering.rows import Cut, Line, Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from hashlib import _Hash
    from pathlib import Path

    from metering.files import Identity

CHUNK_BYTES: Final = 1 << 20
"""How much is read at once, and the longest line that is read whole."""

CHUNK_LINES: Final = 2000

_WINDOW_BYTES: Final = 65_536


@frozen
class Chunk:
    """Some lines of one file; committing them moves its mark from before to after.

    is_end: whatever had been written to the journal when this was read is read now.
    """

    before: Mark
    after: Mark
    lines: tuple[Line, ...]
    is_end: bool

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to commit."""
        return self.before == self.after

    def halves(self) -> tuple[Chunk, Chunk]:
        """Split the lines in two chunks; the mark between them is without a marker."""
        middle = len(self.lines) // 2
        between = evolve(self.before, position=self.lines[middle].position, marker=b"")
        first = Chunk(self.before, between, self.lines[:middle], is_end=False)
        return first, Chunk(between, self.after, self.lines[middle:], self.is_end)


@define
class _LongLine:
    """A line that has outgrown a chunk, as far as it was read."""

    length: int
    digest: _Hash
    head: bytes
    window: bytes

    def grow(self, data: bytes) -> None:
        self.length += len(data)
        self.digest.update(data)
        self.window = (self.window + data)[-_WINDOW_BYTES:]

    def lines(self, position: int, *, is_whole: bool) -> Iterator[Line]:
        """Return the line itself, cut; and what a torn write or a hole left at its end."""
        yield Line(position, self.head, Cut(self.length, self.digest.digest()), is_whole)
        glued_at = self.window.rfind(GLUE)
        if glued_at >= 0:
            rest = self.window[glued_at:]
            yield Line(position + self.length - len(rest), rest, is_whole=is_whole)


@define
class _Reading:
    """The file being read; rest is the active file as it was when nothing more was in it."""

    file: OpenFile
    mark: Mark
    long_line: _LongLine | None = None
    rest: Identity | None = None


class ContentReplacedError(Exception):
    """The content that had been read of a file is no longer in it."""


@define
class Tail:
    """Reads a journal on from its marks, oldest file first; not thread-safe, never blocks for news."""

    _active: Path
    _marks: dict[bytes, dict[int, Mark]] = field(repr=False)
    _reading: _Reading | None = None
    _done: set[Identity] = field(factory=set, repr=False)
    _stood: tuple[Identity, int] | None = None

    @classmethod
    def resume(cls, active: Path, marks: Iterable[Mark]) -> Tail:
        """Read a journal on from what is committed."""
        known: dict[bytes, dict[int, Mark]] = {}
        for mark in marks:
            known.setdefault(mark.fingerprint, {})[mark.generation] = mark
        return cls(active, known)

    def read(self) -> Chunk | None:
        """Read the next lines; an empty chunk at the end of the journal.

        None if there is no journal at its path, and nothing to read of the one that was.
        """
        if self._reading is None:
            self._reading = self._open_next()
        if self._reading is None:
            return None
        try:
            return self._read(self._reading)
        except ContentReplacedError:
            self.close()
            return self.read()

    @property
    def is_missing(self) -> bool:
        """Return whether there is no journal at its path."""
        return identify(self._active) is None

    def lost(self) -> tuple[Mark, ...]:
        """Return, at the end of the journal, the marks of files that were removed before they were read."""
        current = self._reading.mark if self._reading else None
        marks = (mark for known in self._marks.values() for mark in known.values())
        return tuple(mark for mark in marks if not mark.is_finished and mark != current)

    def finished(self) -> list[Path]:
        """Rotated files that were read to their end, oldest first."""
        return [path for path in rotated(self._active) if identify(path) in self._done]

    def unread_bytes(self) -> int:
        """Return the bytes on disk that are not handed out yet; a file not looked at counts whole."""
        found = (identify(path) for path in (*older(self._active), self._active))
        unread = [identity for identity in found if identity and identity not in self._done]
        return sum(max(0, identity.size - self._position_in(identity)) for identity in unread)

    def _position_in(self, identity: Identity) -> int:
        if self._stood is None or not self._stood[0].is_same_file(identity):
            return 0
        return self._stood[1]

    def close(self) -> None:
        """Let go of the file being read."""
        if self._reading is not None:
            self._reading.file.close()
            self._reading = None

    def _read(self, reading: _Reading) -> Chunk | None:
        before = reading.mark
        # Asked before reading: a file that is final by now is read to its very end below.
        active = identify(self._active)
        if active is not None and active == reading.rest:
            return Chunk(before, before, (), is_end=True)
        is_final = self._is_final(reading.file, active)
        lines, end, is_end = _lines(reading, is_final=is_final)
        # Where the file is not at its path, a newer one may be written to: no end is known.
        is_end = is_end and (is_final or active is not None)
        after = evolve(before, is_finished=is_final and is_end, name=reading.file.path.name)
        if end > before.position:
            after = evolve(after, position=end, marker=reading.file.marker(end))
        self._marks.setdefault(after.fingerprint, {})[after.generation] = after
        reading.mark = after
        self._stood = reading.file.identity, after.position
        reading.rest = active if is_end and not is_final else None
        # The file as it is now, not as it was opened: under its new name it must be known again.
        if after.is_finished:
            self._done.add(reading.file.current_identity())
            self.close()
        if active is None and after == before:
            return None
        return Chunk(before, after, lines, is_end and not is_final)

    def _is_final(self, file: OpenFile, active: Identity | None) -> bool:
        """Return whether a file will not be written again: only one that is not the journal's newest."""
        if file.is_compressed:
            return True
        if active is not None:
            return not active.is_same_file(file.identity)
        # A file that was moved away by hand stays Caddy's until there is a new one at its path.
        return file.path != self._active and [file.path] != older(self._active)[-1:]

    def _open_next(self) -> _Reading | None:
        while True:
            reading = next(filter(None, map(self._open, [*older(self._active), self._active])), None)
            if reading is None or reading.file.path != self._active or not self._has_unread_older():
                return reading
            reading.file.close()  # it was rotated while we looked: an older one comes first

    def _has_unread_older(self) -> bool:
        return any(identify(path) not in self._done for path in older(self._active))

    def _open(self, path: Path) -> _Reading | None:
        """Open a file that has something to read."""
        is_active = path == self._active
        if not is_active and identify(path) in self._done:
            return None
        try:
            file = OpenFile.open(path)
        except FileNotFoundError:  # renamed or removed since it was listed
            return None
        except PermissionError:
            if is_active or is_rotated(path, self._active):
                raise
            self._done |= {found for found in (identify(path),) if found}
            return None
        is_ours = is_active or is_rotated(path, self._active) or file.is_of_node(self._node())
        mark = self._mark_of(file, is_active=is_active) if is_ours else None
        if mark is not None:
            return _Reading(file, mark)
        if not is_active:
            self._done.add(file.identity)
        file.close()
        return None

    def _node(self) -> str:
        try:
            return self._active.with_name("node").read_text(encoding="ascii").strip()
        except (FileNotFoundError, ValueError):
            return ""

    def _mark_of(self, file: OpenFile, *, is_active: bool) -> Mark | None:
        """Return where to read a file on; None if there is nothing (more) to read in it."""
        fingerprint = file.fingerprint(is_final=not is_active)
        if fingerprint is None:
            return None
        known = self._marks.get(fingerprint, {})
        # The furthest mark first: a copy of the beginning must not send the journal back.
        for mark in sorted(known.values(), key=lambda mark: mark.position, reverse=True):
            if mark.is_finished and file.is_gzip_of(mark.position):
                return None
            if file.holds(mark):
                is_read = mark.is_finished and not is_active and file.ends_at(mark.position)
                return None if is_read else mark
        return Mark(fingerprint, max(known, default=-1) + 1, file.path.name)


def _lines(reading: _Reading, *, is_final: bool) -> tuple[tuple[Line, ...], int, bool]:
    """Whole lines from the mark on, where they end, and whether that is the end of the file."""
    if reading.long_line is not None:
        return _rest_of_long_line(reading, reading.long_line, is_final=is_final)
    position, window = reading.mark.position, reading.mark.window_bytes
    data = reading.file.read(position - window, window + CHUNK_BYTES)
    if not reading.mark.is_after(data[:window]):
        raise ContentReplacedError
    data = data[window:]
    is_end = len(data) < CHUNK_BYTES
    *whole, rest = data.split(b"\n", CHUNK_LINES)
    if not whole and not is_end:
        reading.long_line = _LongLine(0, hashlib.sha256(), data[:RAW_BYTES], b"")
        reading.long_line.grow(data)
        return (), position, False
    lines = []
    for piece in whole:
        lines.append(Line(position, piece))
        position += len(piece) + 1
    if len(whole) == CHUNK_LINES:
        return tuple(lines), position, is_end and not rest
    if is_final and is_end and rest:
        # The mark stays before it: where this file ends, a longer one that begins alike may go on.
        lines.append(Line(position, rest, is_whole=False))
    return tuple(lines), position, is_end


def _rest_of_long_line(
    reading: _Reading, line: _LongLine, *, is_final: bool
) -> tuple[tuple[Line, ...], int, bool]:
    start = reading.mark.position
    data = reading.file.read(start + line.length, CHUNK_BYTES)
    is_end = len(data) < CHUNK_BYTES
    rest, newline, _ = data.partition(b"\n")
    line.grow(rest)
    if not newline and not (is_final and is_end):
        return (), start, is_end
    reading.long_line = None
    lines = tuple(line.lines(start, is_whole=bool(newline)))
    return lines, start + line.length + 1 if newline else start, is_end and not newline

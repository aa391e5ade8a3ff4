"""Reads a journal and commits what it reads, in memory."""

from __future__ import annotations

import sys
from uuid import UUID

from metering.journal import understand
from metering.rows import Mark
from metering.tail import Chunk, Tail
from tests.metering.writing import JournalFile

if sys.version_info >= (3, 14):
    pass
else:
    pass


class Reader:
    """Reads a journal and commits what it reads, in memory."""

    def __init__(self, journal: JournalFile) -> None:
        self.path = journal.path
        self.marks: dict[tuple[bytes, int], Mark] = {}
        self.ids: list[UUID] = []
        self.reasons: list[str] = []
        self.tail = Tail.resume(self.path, [])

    def restart(self) -> None:
        """Begin again from what is committed."""
        self.tail.close()
        self.tail = Tail.resume(self.path, self.marks.values())

    def step(self) -> Chunk | None:
        """Read and commit one chunk."""
        chunk = self.tail.read()
        if chunk is not None and not chunk.is_empty:
            page = understand(chunk.lines)
            self.ids += [ended.record.id for ended in page.ended]
            self.reasons += [letter.reason for letter in page.dead]
            key = chunk.after.fingerprint, chunk.after.generation
            assert self.marks.get(key, Mark(*key, "")).position == chunk.before.position
            self.marks[key] = chunk.after
        return chunk

    def drain(self) -> list[UUID]:
        """Read to the end; answers the ids read by this."""
        known = len(self.ids)
        for _ in range(10_000):
            chunk = self.step()
            if chunk is None or chunk.is_end:
                return self.ids[known:]
        raise AssertionError("the journal has no end")

"""Journals in Postgres: how far each is read, which lines are missing, and which were not understood."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

import sql
from metering import dead_rows
from metering.connection import Connection
from metering.journal import DeadLetter
from metering.rows import Letter, Line, Mark
from metering.sequences import Sequence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Sequence as Many
    from datetime import datetime
    from uuid import UUID

    from metering.lines import Boot
    from metering.rows import LedgerRow


@define
class JournalStore(Connection):
    """Every method raises StoreUnavailable; those that write raise RowsRefusedError too."""

    _queries: ClassVar[Any] = sql.load("journal")

    async def marks(self, node: UUID) -> list[Mark]:
        """Return how far metering has read each file of a journal."""
        return [Mark(*row) for row in await self._rows("marks", node=node)]

    async def move_mark(self, node: UUID, before: Mark, after: Mark) -> bool:
        """Move a mark; False if it no longer was where it is moved from."""
        return (
            await self._one(
                "move_mark",
                node=node,
                fingerprint=after.fingerprint,
                generation=after.generation,
                name=after.name,
                position=after.position,
                marker=after.marker,
                is_finished=after.is_finished,
                before=before.position,
            )
            is not None
        )

    async def finish_lost(self, node: UUID, mark: Mark) -> None:
        """Give up a file that is no longer there."""
        await self._do("finish_lost", node=node, fingerprint=mark.fingerprint, generation=mark.generation)

    async def eof_at(self, node: UUID) -> datetime | None:
        """Return the last committed end of file, on Redis's clock."""
        moment: datetime | None = await self._one("eof_at", node=node)
        return moment

    async def set_eof_at(self, node: UUID, moment: datetime) -> None:
        """Say that the journal was read to an end no older than a moment of Redis's clock."""
        await self._do("set_eof_at", node=node, eof_at=moment)

    async def add_boot(self, boot: Boot) -> None:
        """Make a node known, or its later boot."""
        await self._do("add_boot", node=boot.node, boot=boot.boot)

    async def sequences(self, node: UUID) -> list[Sequence]:
        """Return the line numbers seen of a node's boots."""
        rows = await self._rows("sequences", node=node)
        return [
            Sequence(
                row["boot"], row["next"], tuple(row["ahead"]), row["lost"], tuple(_pairs(row["missing"]))
            )
            for row in rows
        ]

    async def set_sequence(self, node: UUID, sequence: Sequence) -> None:
        """Remember the line numbers seen of a boot."""
        await self._do(
            "set_sequences",
            node=node,
            boot=sequence.boot,
            next=sequence.next,
            ahead=list(sequence.ahead),
            lost=sequence.lost,
            missing=[number for gap in sequence.missing for number in gap],
        )

    async def add_dead_letters(self, node: UUID, mark: Mark, letters: Many[DeadLetter]) -> None:
        """Keep lines that were not understood; one that is kept already changes nothing."""
        if not letters:
            return
        await self._do(
            "add_dead_letters",
            node=node,
            fingerprint=mark.fingerprint,
            generation=mark.generation,
            positions=[letter.position for letter in letters],
            lengths=[letter.length for letter in letters],
            digests=[letter.sha256 for letter in letters],
            reasons=[letter.reason for letter in letters],
            raws=[letter.raw for letter in letters],
        )

    async def add_dead_row(self, node: UUID, row: LedgerRow) -> None:
        """Keep a ledger row that no line stands for and that Postgres refused; once, however often it is."""
        raw = dead_rows.written(row)
        letter = DeadLetter(0, len(raw), hashlib.sha256(raw).digest(), dead_rows.reason_of(row), raw)
        mark = Mark(hashlib.sha256(row.request_id.bytes).digest(), row.entry, row.outcome)
        await self.add_dead_letters(node, mark, [letter])

    async def wanted_letters(self, node: UUID, count: int) -> list[Letter]:
        """Return dead letters that an operator wants read again."""
        rows = await self._rows("wanted_letters", node=node, count=count)
        return [Letter(row["id"], row["reason"], Line(row["position"], row["raw"])) for row in rows]

    async def letters_replayed(self, understood: Iterable[int], *, tried: Iterable[int]) -> None:
        """Note what became of dead letters that were read again."""
        await self._do("letters_replayed", understood=list(understood), tried=list(tried))

    async def forget_marks(self, node: UUID, *, kept: Many[bytes], days: int) -> None:
        """Forget files that were read to their end so long ago, but for those of some fingerprints."""
        await self._do("forget_marks", node=node, kept=kept, days=days)


def _pairs(numbers: Many[int]) -> Iterator[tuple[int, int]]:
    return zip(numbers[::2], numbers[1::2], strict=True)

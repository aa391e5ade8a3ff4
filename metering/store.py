"""What metering asks of Postgres: typed, over one connection, one transaction at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from authz.types import Closed, Total
from metering.rows import Charged, Letter, Line, Mark, OpenRow, Owner, Ratios, TenantTotal, Unpublished
from metering.sequences import Sequence
from metering.tallies import Tallies

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from collections.abc import Sequence as Many
    from datetime import date, datetime
    from uuid import UUID

    import asyncpg

    from metering.journal import Boot, DeadLetter
    from metering.rows import Increase, LedgerRow, Lesson


@define
class Store(Tallies):
    """Every method raises StoreUnavailable; those that write raise RowsRefusedError too."""

    async def marks(self, node: UUID) -> list[Mark]:
        """Where metering stands in the files of a journal."""
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
        """Give up a file that is gone."""
        await self._do("finish_lost", node=node, fingerprint=mark.fingerprint, generation=mark.generation)

    async def eof_at(self, node: UUID) -> datetime | None:
        """The last committed end of file, on Redis's clock."""
        moment: datetime | None = await self._one("eof_at", node=node)
        return moment

    async def set_eof_at(self, node: UUID, moment: datetime) -> None:
        """Say that the journal was read to an end no older than a moment of Redis's clock."""
        await self._do("set_eof_at", node=node, eof_at=moment)

    async def add_boot(self, boot: Boot) -> None:
        """Make a node known, or its later boot."""
        await self._do("add_boot", node=boot.node, boot=boot.boot)

    async def owners(self, lookups: Collection[str]) -> dict[str, Owner]:
        """Whose the handles are; unknown ones are left out."""
        if not lookups:
            return {}
        rows = await self._rows("owners", lookups=list(lookups))
        return {row["lookup"]: Owner(row["tenant_id"], row["key_id"]) for row in rows}

    async def ensure_partition(self, day: date) -> None:
        """Make the ledger's partition of a day if there is none."""
        await self._one("ensure_partition", day=day)

    async def add_open(self, rows: Collection[OpenRow]) -> None:
        """Remember requests that have begun, unless the ledger knows their end already."""
        if not rows:
            return
        await self._do(
            "add_open",
            rows=[
                (
                    row.request_id,
                    row.node,
                    row.boot,
                    row.owner.tenant,
                    row.owner.key,
                    row.reserved_input,
                    row.reserved_output,
                    row.day,
                    row.month,
                    row.deadline,
                )
                for row in rows
            ],
        )

    async def end_open(self, ids: Collection[UUID]) -> None:
        """Forget requests that have ended."""
        if not ids:
            return
        await self._do("end_open", ids=list(ids))

    async def take_dead_boots(self, node: UUID, boot: UUID) -> list[OpenRow]:
        """Take out the open requests of boots before this one."""
        return [_open_row(row) for row in await self._rows("take_dead_boots", node=node, boot=boot)]

    async def take_overdue(self, node: UUID, before: datetime) -> list[OpenRow]:
        """Take out the open requests whose deadline is before a moment."""
        return [_open_row(row) for row in await self._rows("take_overdue", node=node, before=before)]

    async def add_ledger(self, rows: Many[LedgerRow]) -> set[UUID]:
        """Add rows of one entry number each request; answers the ids of those that were not there."""
        if not rows:
            return set()
        return {row["request_id"] for row in await self._rows("add_ledger", rows=rows)}

    async def orphans_charged(self, ids: Collection[UUID]) -> dict[UUID, Charged]:
        """Of these requests the ones charged as orphans and not adjusted yet."""
        if not ids:
            return {}
        rows = await self._rows("orphans_charged", ids=list(ids))
        return {
            row["request_id"]: Charged(
                row["request_id"],
                Owner(row["tenant_id"], row["key_id"]),
                row["day"],
                row["month"],
                row["input_tokens"],
                row["output_tokens"],
            )
            for row in rows
        }

    async def raise_windows(self, increases: Many[Increase]) -> list[TenantTotal]:
        """Add to windows; answers their new totals."""
        if not increases:
            return []
        rows = await self._rows(
            "raise_windows",
            scopes=[increase.scope for increase in increases],
            periods=[increase.period for increase in increases],
            starts=[increase.start for increase in increases],
            tenants=[increase.tenant for increase in increases],
            used=[increase.tokens for increase in increases],
        )
        return [_tenant_total(row) for row in rows]

    async def sequences(self, node: UUID) -> list[Sequence]:
        """The line numbers seen of a node's boots."""
        rows = await self._rows("sequences", node=node)
        return [Sequence(row["boot"], row["next"], tuple(row["ahead"]), row["lost"]) for row in rows]

    async def set_sequence(self, node: UUID, sequence: Sequence) -> None:
        """Remember the line numbers seen of a boot."""
        await self._do(
            "set_sequences",
            node=node,
            boot=sequence.boot,
            next=sequence.next,
            ahead=list(sequence.ahead),
            lost=sequence.lost,
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

    async def wanted_letters(self, node: UUID, count: int) -> list[Letter]:
        """Dead letters to be read again."""
        rows = await self._rows("wanted_letters", node=node, count=count)
        return [Letter(row["id"], Line(row["position"], row["raw"])) for row in rows]

    async def letters_replayed(self, understood: Iterable[int], *, tried: Iterable[int]) -> None:
        """Note what became of dead letters that were read again."""
        await self._do("letters_replayed", understood=list(understood), tried=list(tried))

    async def ratios(self, models: Collection[str]) -> dict[str, Ratios]:
        """What models have shown so far."""
        if not models:
            return {}
        rows = await self._rows("ratios", models=list(models))
        return {row["model"]: Ratios(*list(row)[1:]) for row in rows}

    async def learn(self, lessons: Collection[Lesson]) -> None:
        """Move the averages of models."""
        if not lessons:
            return
        await self._do(
            "learn",
            lessons=[
                (
                    lesson.model,
                    lesson.ratios.input_bytes_per_token,
                    lesson.ratios.output_bytes_per_token,
                    lesson.ratios.output_tokens_per_delta,
                    lesson.ratios.output_tokens_per_s,
                    lesson.template_tokens,
                    lesson.samples,
                )
                for lesson in lessons
            ],
        )

    async def unpublished(self, count: int) -> list[Unpublished]:
        """Ledger rows that Redis has not been told of, by tenant."""
        rows = await self._rows("unpublished", count=count)
        return [
            Unpublished(
                row["tenant_id"],
                row["entry"],
                Closed(row["request_id"], row["key_id"], row["tokens"]),
                row["day"],
                row["month"],
            )
            for row in rows
        ]

    async def every_eof_at(self) -> datetime | None:
        """The moment to which every node's journal is known."""
        moment: datetime | None = await self._one("every_eof_at")
        return moment

    async def tenants(self) -> list[UUID]:
        """All tenants."""
        return [row["id"] for row in await self._rows("tenants")]

    async def in_no_journal(self, ids: Iterable[UUID]) -> list[UUID]:
        """Of these requests those that nothing was ever read of."""
        return [row["id"] for row in await self._rows("in_no_journal", ids=list(ids))]

    async def publish_again(self, ids: Iterable[UUID]) -> None:
        """Have the settlements of these requests published once more."""
        await self._do("publish_again", ids=list(ids))

    async def forget_marks(self, node: UUID, *, days: int) -> None:
        """Forget files that were read to their end so long ago."""
        await self._do("forget_marks", node=node, days=days)

    async def partitions(self) -> list[date]:
        """The days the ledger has."""
        return [row["day"] for row in await self._rows("partitions")]

    async def drop_partition(self, day: date) -> bool:
        """Forget a day of the ledger; False if it can't be done right now."""
        return bool(await self._one("drop_partition", day=day))

    async def windows(self, scopes: Iterable[UUID], starts: Iterable[date]) -> list[TenantTotal]:
        """What scopes have used of the windows that start then."""
        rows = await self._rows("windows", scopes=list(scopes), starts=list(starts))
        return [_tenant_total(row) for row in rows]

    async def published(self, rows: Iterable[tuple[UUID, int]]) -> None:
        """Redis has been told of these ledger rows."""
        ids, entries = zip(*rows, strict=True)
        await self._do("published", ids=ids, entries=entries)


def _open_row(row: asyncpg.Record) -> OpenRow:
    return OpenRow(
        row["request_id"],
        row["node"],
        row["boot"],
        Owner(row["tenant_id"], row["key_id"]),
        row["reserved_input"],
        row["reserved_output"],
        row["day"],
        row["month"],
        row["deadline"],
    )


def _tenant_total(row: asyncpg.Record) -> TenantTotal:
    total = Total(row["scope_id"], row["period"], row["start"], row["used"], row["version"])
    return TenantTotal(row["tenant_id"], total)

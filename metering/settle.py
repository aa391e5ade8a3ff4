"""One batch of the journal, one Postgres transaction: replaying it changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog
from attrs import define, evolve, field, frozen

from authz.errors import GatewayError
from authz.models import canonical
from metering.connection import RowsRefusedError
from metering.cost import FREE, cost, needs_figures
from metering.days import floor as lowest
from metering.figures import ModelOwner
from metering.journal import Page, joined, refused, understand
from metering.learn import DEFAULTS, figures, mixed
from metering.ledger import adjustment, open_row, settlement, storable
from metering.orphans import add_each, asked, take_orphans
from metering.orphans import priced as priced_orphan
from metering.publish import publications
from metering.refusals import key_minutes, sort_out
from metering.rollup import uses
from metering.rows import Owner, Source
from metering.sequences import advanced, untaken
from metering.windows import increases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date, datetime
    from uuid import UUID

    from metering.figure_store import FigureStore
    from metering.journal_store import JournalStore
    from metering.ledger_store import LedgerStore
    from metering.lines import Record
    from metering.metrics import Metrics
    from metering.outbox import Publication
    from metering.progress_store import ProgressStore
    from metering.rows import LedgerRow, Line, Mark, TenantTotal
    from metering.sequences import Sequence

log: Final = structlog.get_logger()


class MarkMovedError(GatewayError):
    """Another process reads this journal and has committed what this one was about to."""


@frozen
class Batch:
    """The content of one transaction: a page, and the marks that it lies between.

    A page that was kept elsewhere lies between none. eof_at says that it reaches to an end of file.
    """

    page: Page
    at: datetime
    before: Mark | None = None
    after: Mark | None = None
    eof_at: datetime | None = None


@define
class Settlement:
    """Commits one node's batches in order; what it remembers is only what it has committed."""

    _journal: JournalStore
    _ledger: LedgerStore
    _figures: FigureStore
    _progress: ProgressStore
    _node: UUID
    _reach: Callable[[str], None]
    _metrics: Metrics
    _sequences: dict[UUID, Sequence]
    _days: set[date] = field(factory=set)

    async def settle(self, batch: Batch) -> tuple[Publication, ...]:
        """Commit a batch; raises MarkMovedError if its lines are not the next ones any more."""
        if batch.before is not None:
            batch = evolve(batch, page=untaken(self._sequences, batch.page, self._node))
        # Keys and ratios never take a request back, so they may be read before the transaction.
        priced = await self._priced(batch)
        sequences = advanced(self._sequences, batch.page, self._node)
        try:
            added, totals = await self._commit(batch, priced, sequences)
        except RowsRefusedError:
            self._days.clear()  # a partition may have been dropped: look again, once
            added, totals = await self._commit(batch, priced, sequences)
        self._reach("committed")
        self._metrics.committed(batch.page, added)
        self._alarm(added, sequences)
        for request_id in batch.page.salvaged:
            log.error("metering.line_salvaged", request=request_id)
        self._days |= {row.partition for row in added}
        self._sequences |= {sequence.boot: sequence for sequence in sequences}
        return publications(added, totals)

    async def settle_row(self, row: LedgerRow) -> None:
        """Commit a row that no line stands for; one that the ledger has changes nothing."""
        async with self._ledger.transaction():
            await self._ledger.ensure_partition(row.partition)
            added = [row] if await self._ledger.add_ledger([row]) else []
            await self._ledger.add_uses(uses(added))
            await self._ledger.raise_windows(increases(added))
        self._metrics.committed(Page(), added)
        self._alarm(added, [])

    async def without_too_old(self, lines: Iterable[Line], page: Page, at: datetime) -> Page:
        """Return the page of these lines with dead letters in place of requests of days that were dropped.

        They may have been billed, and nothing is left that knows. Days are dropped while this runs, but
        yesterday is kept by every policy: Postgres is asked only for what is older.
        """
        if not _is_older(page, lowest(at.date() - timedelta(days=1))):
            return page
        floor = lowest(await self._ledger.oldest_day())
        return page if not _is_older(page, floor) else joined(_unless_older(line, floor) for line in lines)

    def _alarm(self, added: Iterable[LedgerRow], sequences: Iterable[Sequence]) -> None:
        """Say what ought never to happen."""
        for row in added:
            if row.overrun_tokens:
                log.error("metering.reservation_overrun", request=row.request_id, tokens=row.overrun_tokens)
            if row.usage_source == Source.PROGRESS:
                log.warning("metering.request_orphaned", request=row.request_id, tokens=row.tokens)
        for sequence in sequences:
            known = self._sequences.get(sequence.boot)
            lost = sequence.lost - (known.lost if known else 0)
            if lost:
                log.error("metering.lines_lost", boot=sequence.boot, lines=lost)

    async def _commit(
        self, batch: Batch, priced: dict[UUID, LedgerRow], sequences: list[Sequence]
    ) -> tuple[list[LedgerRow], list[TenantTotal]]:
        """Write the transaction: the mark first, so that a second writer stops here; shared rows last."""
        async with self._ledger.transaction():
            await self._move_mark(batch)
            self._reach("mark_moved")
            orphans = await self._track_open(batch)
            told_apart = sort_out(priced, await self._ledger.kept_refusals(key_minutes(priced.values())))
            added = await self._add(told_apart.rows, orphans)
            self._reach("ledger_written")
            await self._keep(batch, sequences)
            await self._ledger.add_refusals(told_apart.refused())
            await self._ledger.add_uses(uses(added))
            # Every batch of a tenant, from every node, waits for its windows, and every batch of a model for
            # what it has shown: these rows come last, the most wanted ones at the very end.
            totals = await self._ledger.raise_windows(increases(added))
            known = await self._figures.ratios(mixed(added), at=batch.at)
            await self._figures.learn(figures(added, known))
            self._reach("windows_raised")
        return added, totals

    async def _move_mark(self, batch: Batch) -> None:
        if batch.before is None or batch.after is None:
            return
        if not await self._journal.move_mark(self._node, batch.before, batch.after):
            raise MarkMovedError("Another metering process reads this journal, too.")

    async def _priced(self, batch: Batch) -> dict[UUID, LedgerRow]:
        """Return the row of every record; of two records of one request the first counts."""
        ended = batch.page.ended
        nameless = [line.record.lookup for line in ended if line.record.tenant is None]
        owners = await self._ledger.owners({storable(lookup) or "" for lookup in nameless} - {""})
        owned = [(line, _owner(line.record, owners)) for line in ended]
        wanted = {_asked(line.record, owner) for line, owner in owned if owner and needs_figures(line.record)}
        ratios = await self._figures.ratios(wanted, at=batch.at)
        rows: dict[UUID, LedgerRow] = {}
        for line, owner in owned:
            known = ratios.get(_asked(line.record, owner), DEFAULTS) if owner else DEFAULTS
            row = settlement(line, owner, known, cost(line.record, known) if owner else FREE)
            rows.setdefault(line.record.id, row)
        return rows

    async def _track_open(self, batch: Batch) -> list[LedgerRow]:
        """Remember what has begun, forget what has ended; answers the rows of what is dead."""
        page = batch.page
        ended = {line.record.id for line in page.ended}
        begun = {line.id for line in page.opens}
        # In this order: what ended in this very batch was never open, and only what is still open
        # after that can be an orphan.
        await self._ledger.add_open([open_row(line) for line in page.opens if line.id not in ended])
        await self._ledger.end_open(ended - begun)
        for boot in page.boots:
            await self._journal.add_boot(boot)
        await self._progress.note(page)
        orphans = await take_orphans(
            self._ledger, self._progress, page.boots, node=self._node, eof_at=batch.eof_at
        )
        ratios = await self._figures.ratios({asked(orphan.row) for orphan in orphans}, at=batch.at)
        return [priced_orphan(orphan, ratios[asked(orphan.row)], at=batch.at) for orphan in orphans]

    async def _add(self, priced: dict[UUID, LedgerRow], orphans: Iterable[LedgerRow]) -> list[LedgerRow]:
        """Add rows to the ledger; answers those that were not there, which alone count."""
        for day in {row.partition for row in priced.values()} - self._days:
            await self._ledger.ensure_partition(day)
        new = await self._ledger.add_ledger(list(priced.values()))
        dead = {row.request_id: row for row in orphans if row.request_id not in priced}
        if dead:
            new |= await add_each(self._ledger, list(dead.values()), node=self._node)
        rows = dead | priced
        # A record whose row was there is a replay, or comes after its request was given up.
        late = priced.keys() - new
        charged = await self._ledger.orphans_charged(late)
        adjustments = {
            request_id: adjustment(priced[request_id], orphan) for request_id, orphan in charged.items()
        }
        adjusted = await self._ledger.add_ledger(list(adjustments.values()))
        return [rows[request_id] for request_id in rows if request_id in new] + [
            adjustments[request_id] for request_id in adjusted
        ]

    async def _keep(self, batch: Batch, sequences: Iterable[Sequence]) -> None:
        for sequence in sequences:
            await self._journal.set_sequence(self._node, sequence)
        if batch.before is not None:
            await self._journal.add_dead_letters(self._node, batch.before, batch.page.dead)
        if batch.eof_at is not None:
            await self._journal.set_eof_at(self._node, batch.eof_at)


def _is_older(page: Page, floor: UUID) -> bool:
    ended = (line.record.id for line in page.ended)
    return any(request_id < floor for request_id in (*ended, *(line.id for line in page.opens)))


def _unless_older(line: Line, floor: UUID) -> Page:
    page = understand([line])
    return refused(line, "too_old") if _is_older(page, floor) else page


def _owner(record: Record, owners: dict[str, Owner]) -> Owner | None:
    if record.tenant is not None and record.key is not None:
        return Owner(record.tenant, record.key)
    return owners.get(record.lookup or "")


def _asked(record: Record, owner: Owner) -> ModelOwner:
    return ModelOwner(canonical(storable(record.model) or ""), owner)

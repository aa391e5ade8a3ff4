"""Publish to Redis what is committed: from the outbox, never from a range of the journal."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final
from uuid import UUID

from attrs import define

from authz.types import TOTAL_START, Closed
from metering.outbox import OutboxRow, Publication, Unpublished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from authz.limiter.limiter import Limiter
    from authz.types import Total
    from metering.ledger_store import LedgerStore
    from metering.rows import LedgerRow, TenantTotal

PAGE_ROWS: Final = 1000

_START: Final = OutboxRow(UUID(int=0), UUID(int=0), -1)


@define
class Publisher:
    """Settles in Redis; a row counts as published only after Redis has answered."""

    _ledger: LedgerStore
    _limiter: Limiter
    _reach: Callable[[str], None]

    async def publish(self, publications: Iterable[Publication]) -> None:
        """Publish what was just committed; raises LimiterUnavailable, and nothing is lost by that.

        Where one master of a cluster is away, what is its tenants' stays in the outbox.
        """
        rows: list[OutboxRow] = []
        # Redis first, the outbox second: a process that dies in between publishes the same once more.
        for publication in publications:
            async with self._limiter.beside_others():
                await self._limiter.settle(publication.tenant, publication.closed, publication.totals)
                self._reach("settled")
                rows += publication.outbox
        if rows:
            await self._ledger.published(rows)
            self._reach("published")

    async def catch_up(self) -> int:
        """Publish all that was committed and not published: after a start, a failure, or by others.

        Page by page, each from where the last one ended: what is published is deleted, and would be
        walked over again from the beginning. Returns how many rows that were.
        """
        count, after = 0, _START
        while waiting := await self._ledger.unpublished(after, PAGE_ROWS):
            scopes = {row.tenant for row in waiting} | {row.closed.key for row in waiting}
            starts = {start for row in waiting for start in (row.day, row.month) if start} | {TOTAL_START}
            await self.publish(_waiting(waiting, await self._ledger.windows(scopes, starts)))
            count += len(waiting)
            last = waiting[-1]
            after = OutboxRow(last.tenant, last.closed.request_id, last.entry)
        return count


def publications(rows: Sequence[LedgerRow], totals: Iterable[TenantTotal]) -> tuple[Publication, ...]:
    """Return what to publish after a commit that added these rows and raised windows to these totals."""
    closed: defaultdict[UUID, list[Closed]] = defaultdict(list)
    ids: defaultdict[UUID, list[tuple[UUID, int]]] = defaultdict(list)
    for row in rows:
        if row.tenant_id is not None and row.key_id is not None:
            closed[row.tenant_id].append(Closed(row.request_id, row.key_id, row.tokens))
            ids[row.tenant_id].append((row.request_id, row.entry))
    return _by_tenant(closed, totals, ids)


def _waiting(rows: Iterable[Unpublished], totals: Iterable[TenantTotal]) -> tuple[Publication, ...]:
    closed: defaultdict[UUID, list[Closed]] = defaultdict(list)
    ids: defaultdict[UUID, list[tuple[UUID, int]]] = defaultdict(list)
    for row in rows:
        closed[row.tenant].append(row.closed)
        ids[row.tenant].append((row.closed.request_id, row.entry))
    return _by_tenant(closed, totals, ids)


def _by_tenant(
    closed: dict[UUID, list[Closed]],
    totals: Iterable[TenantTotal],
    ids: dict[UUID, list[tuple[UUID, int]]],
) -> tuple[Publication, ...]:
    raised: defaultdict[UUID, list[Total]] = defaultdict(list)
    for total in totals:
        raised[total.tenant].append(total.total)
    return tuple(
        Publication(tenant, tuple(closed[tenant]), tuple(raised[tenant]), tuple(ids[tenant]))
        for tenant in closed
    )

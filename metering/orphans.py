"""Requests whose record never came.

One that is in the journal pays what its last progress line says, once it is certain that no record will
come. A reservation that no journal knows never ran: it costs nothing.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import structlog

from authz.models import canonical
from metering.connection import RowsRefusedError
from metering.cost import FREE, ORPHANED, cost
from metering.days import moment_of
from metering.figures import ModelOwner
from metering.journal import Ended
from metering.journal_store import JournalStore
from metering.ledger import settlement, swept
from metering.lines import VERSION, Record, Tokens, Windows
from metering.progress import Delivered, Orphan
from metering.rows import Owner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from authz.limiter.limiter import Limiter
    from authz.types import OpenRequest
    from metering.figures import Ratios
    from metering.ledger_store import LedgerStore
    from metering.lines import Boot
    from metering.progress_store import ProgressStore
    from metering.rows import LedgerRow, OpenRow

log: Final = structlog.get_logger()

TENANTS_AT_ONCE: Final = 500
"""Tenants whose reservations Redis is asked for at once, in one pipeline."""

GRACE: Final = timedelta(seconds=60)
"""How long after a request's deadline its record may still come."""

PROGRESS_EVERY: Final = timedelta(seconds=1)
"""How often Caddy notes what its streams have delivered (progressEvery in caddy/progress.go)."""


async def take_orphans(
    ledger: LedgerStore,
    progress: ProgressStore,
    boots: Sequence[Boot],
    *,
    node: UUID,
    eof_at: datetime | None,
) -> list[Orphan]:
    """Close what a later boot of its node, or an end of file after its deadline, proves dead.

    eof_at is the end of this node's journal that the transaction commits to; None if it is not one.
    """
    taken: list[tuple[OpenRow, datetime | None]] = []
    for boot in boots:
        taken += [(row, moment_of(boot.boot)) for row in await ledger.take_dead_boots(boot.node, boot.boot)]
    if eof_at is not None:
        taken += [(row, None) for row in await ledger.take_overdue(node, eof_at - GRACE)]
    known = await progress.of({row.boot for row, _ in taken})
    for boot in boots:
        await progress.forget(boot.node, boot.boot)
    return [Orphan(row, known.get(row.boot), ended_at) for row, ended_at in taken]


def asked(row: OpenRow) -> ModelOwner:
    """Return the model and the owner by whose figures an open request is priced."""
    return ModelOwner(canonical(row.model or ""), row.owner)


def priced(orphan: Orphan, ratios: Ratios, *, at: datetime) -> LedgerRow:
    """Return the row of a request whose record never came.

    It pays as one that was cut off at its last progress line, and for a second more, or the time until its
    process had ended: no line can know of that. One that still waited for a slot costs nothing, and one
    that had waited pays from its start.
    """
    row, progress = orphan.row, orphan.progress
    delivered = progress.delivered.get(row.request_id) if progress else None
    delivered = delivered or Delivered(0, 0, 0)
    unseen = PROGRESS_EVERY
    if progress and progress.progress_at and orphan.ended_at:
        unseen = min(unseen, orphan.ended_at - progress.progress_at)
    ran = (progress.last_at if progress else at) - (row.started_at or moment_of(row.request_id))
    record = Record(
        v=VERSION,
        id=row.request_id,
        node=row.node,
        boot=row.boot,
        seq=0,
        outcome=ORPHANED,
        ip=row.ip,
        tenant=row.owner.tenant,
        key=row.owner.key,
        path=row.path,
        model=row.model,
        model_asked=row.model_asked,
        trace_id=row.trace_id,
        end_user=row.end_user,
        backend=row.backend or "",
        stream=row.stream,
        reserved=Tokens(row.reserved_input, row.reserved_output),
        ceiling=_ceiling(row),
        windows=Windows(row.day, f"{row.month:%Y-%m}"),
        deltas=delivered.deltas,
        text_bytes=delivered.text_bytes,
        tool_bytes=delivered.tool_bytes,
        prompt_bytes=row.prompt_bytes,
        images=row.images,
        duration_ms=_ms(ran),
    )
    has_waited = row.queued and not (progress and row.request_id in progress.delivered)
    charged = FREE if has_waited else cost(record, ratios, unseen_s=_ms(unseen) / 1000)
    return settlement(Ended(at, record), row.owner, ratios, charged)._replace(seq=None, backend=row.backend)


def _ceiling(row: OpenRow) -> Tokens | None:
    if row.ceiling_input is None or row.ceiling_output is None:
        return None
    return Tokens(row.ceiling_input, row.ceiling_output)


def _ms(duration: timedelta) -> int:
    return max(0, duration // timedelta(milliseconds=1))


async def sweep(ledger: LedgerStore, limiter: Limiter, *, node: UUID, at: datetime) -> int:
    """Settle what Redis holds long past its deadline; answers how many requests that were.

    Only up to the moment to which every node's journal is known: who knows of it might be any.
    """
    known_until = await ledger.every_eof_at()
    if known_until is None:
        return 0
    count = 0
    everyone = await ledger.tenants()
    for start in range(0, len(everyone), TENANTS_AT_ONCE):
        tenants = everyone[start : start + TENANTS_AT_ONCE]
        overdue = await asyncio.gather(*(_overdue(limiter, tenant, known_until) for tenant in tenants))
        for tenant, requests in zip(tenants, overdue, strict=True):
            if requests:
                count += len(requests)
                await _settle(ledger, tenant, requests, node=node, at=at)
    return count


async def _overdue(limiter: Limiter, tenant: UUID, before: datetime) -> Sequence[OpenRequest]:
    found: list[OpenRequest] = []
    async with limiter.beside_others():
        found += await limiter.overdue(tenant, before)
    return found


async def _settle(
    ledger: LedgerStore, tenant: UUID, requests: Sequence[OpenRequest], *, node: UUID, at: datetime
) -> None:
    """Settle what no journal knows of a tenant's reservations; publish again what the ledger knows."""
    held = {request.request_id: request for request in requests}
    async with ledger.transaction():
        # What an open row knows is left to its deadline, what the ledger knows is only published again.
        unknown = await ledger.in_no_journal(held)
        rows = [swept(held[i], Owner(tenant, held[i].key), node=node, at=at) for i in unknown]
        await add_each(ledger, rows, node=node)
        await ledger.publish_again(held)


async def add_each(ledger: LedgerStore, rows: Sequence[LedgerRow], *, node: UUID) -> set[UUID]:
    """Add rows that no line stands for; returns the ids of those that were not there.

    One that Postgres refuses is set aside as a dead letter, and the others go on.
    """
    try:
        async with ledger.transaction():
            return await _add(ledger, rows)
    except RowsRefusedError as error:
        if len(rows) == 1:
            await JournalStore.beside(ledger).add_dead_row(node, rows[0])
            log.warning("metering.row_refused", request=rows[0].request_id, reason=str(error))
            return set()
    middle = len(rows) // 2
    first = await add_each(ledger, rows[:middle], node=node)
    return first | await add_each(ledger, rows[middle:], node=node)


async def _add(ledger: LedgerStore, rows: Sequence[LedgerRow]) -> set[UUID]:
    for day in {row.partition for row in rows}:
        await ledger.ensure_partition(day)
    return await ledger.add_ledger(rows)

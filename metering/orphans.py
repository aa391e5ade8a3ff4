"""Requests whose record never came.

One that is in the journal pays what it had reserved, once it is certain that no record will come. A
reservation that no journal knows never ran: it costs nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from metering.ledger import orphan, swept
from metering.rows import Owner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from authz.limiter.limiter import Limiter
    from metering.journal import Boot
    from metering.ledger_store import LedgerStore
    from metering.rows import LedgerRow

GRACE: Final = timedelta(seconds=60)
"""How long after a request's deadline its record may still come."""


async def take_orphans(
    ledger: LedgerStore, boots: Sequence[Boot], *, node: UUID, eof_at: datetime | None, at: datetime
) -> list[LedgerRow]:
    """Close what a later boot of its node, or an end of file after its deadline, proves dead.

    eof_at is the end of this node's journal that the transaction commits to; None if it is not one.
    """
    taken = []
    for boot in boots:
        taken += await ledger.take_dead_boots(boot.node, boot.boot)
    if eof_at is not None:
        taken += await ledger.take_overdue(node, eof_at - GRACE)
    return [orphan(row, at) for row in taken]


async def sweep(ledger: LedgerStore, limiter: Limiter, *, node: UUID, at: datetime) -> int:
    """Settle what Redis holds long past its deadline; answers how many requests that were.

    Only up to the moment to which every node's journal is known: who knows of it might be any.
    """
    known_until = await ledger.every_eof_at()
    if known_until is None:
        return 0
    count = 0
    for tenant in await ledger.tenants():
        held = {request.request_id: request for request in await limiter.overdue(tenant, known_until)}
        if not held:
            continue
        count += len(held)
        async with ledger.transaction():
            # What an open row knows is left to its deadline, what the ledger knows is only told again.
            unknown = await ledger.in_no_journal(held)
            rows = [swept(held[i], Owner(tenant, held[i].key), node=node, at=at) for i in unknown]
            for row in rows:
                await ledger.ensure_partition(row.partition)
            await ledger.add_ledger(rows)
            await ledger.publish_again(held)
    return count

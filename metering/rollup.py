"""The ledger's sums by day, key and model, for `usage`: what a settlement adds to the ledger it adds here."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from authz.models import canonical
from metering.ledger import SETTLEMENT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from uuid import UUID

    from metering.ledger import LedgerRow


class Use(NamedTuple):
    """What to add to a row of usage_daily: the fields are the table's columns, in the table's order."""

    day: date
    tenant_id: UUID
    key_id: UUID
    model: str
    requests: int
    input_tokens: int
    output_tokens: int


def uses(rows: Iterable[LedgerRow]) -> list[Use]:
    """The sums of ledger rows, in the order in which they are locked; nothing for what asked no backend."""
    sums: defaultdict[tuple[date, UUID, UUID, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        requests = int(row.entry == SETTLEMENT and row.backend is not None)
        figures = (requests, row.input_tokens, row.output_tokens)
        if row.tenant_id is None or row.key_id is None or not any(figures):
            continue
        total = sums[row.partition, row.key_id, row.tenant_id, canonical(row.model) if row.model else ""]
        for index, figure in enumerate(figures):
            total[index] += figure
    return [
        Use(day, tenant, key, model, *figures) for (day, key, tenant, model), figures in sorted(sums.items())
    ]

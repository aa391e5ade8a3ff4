"""The ledger's sums by day, key and model, for `usage`: what a settlement adds to the ledger it adds here.

A day is the tenant's, as its budget has it; in UTC where a request was never admitted.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from authz.models import canonical
from metering.rows import SETTLEMENT, Use

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from uuid import UUID

    from metering.rows import LedgerRow


def uses(rows: Iterable[LedgerRow]) -> list[Use]:
    """Sum ledger rows, in the order in which they are locked; skip requests that asked no backend."""
    sums: defaultdict[tuple[date, UUID, UUID, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        requests = int(row.entry == SETTLEMENT and row.backend is not None)
        figures = (requests, row.input_tokens, row.output_tokens)
        if row.tenant_id is None or row.key_id is None or not any(figures):
            continue
        day, model = row.day or row.partition, canonical(row.model) if row.model else ""
        total = sums[day, row.key_id, row.tenant_id, model]
        for index, figure in enumerate(figures):
            total[index] += figure
    return [
        Use(day, tenant, key, model, *figures) for (day, key, tenant, model), figures in sorted(sums.items())
    ]

"""Increases of budget windows: the tokens that ledger rows add for their tenant and key."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from authz.types import TOTAL_START, Period
from metering.rows import Increase

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from uuid import UUID

    from metering.rows import LedgerRow


def increases(rows: Iterable[LedgerRow]) -> list[Increase]:
    """Sum rows per window, in the order in which windows are locked; skip what is free."""
    spent: defaultdict[tuple[UUID, UUID, date, date], int] = defaultdict(int)
    for row in rows:
        if row.tenant_id is None or row.key_id is None or row.day is None or row.month is None:
            continue
        spent[row.tenant_id, row.key_id, row.day, row.month] += row.tokens
    sums: defaultdict[tuple[UUID, str, date, UUID], int] = defaultdict(int)
    for (tenant, key, day, month), tokens in spent.items():
        for scope in (tenant, key):
            sums[scope, Period.DAY, day, tenant] += tokens
            sums[scope, Period.MONTH, month, tenant] += tokens
            sums[scope, Period.TOTAL, TOTAL_START, tenant] += tokens
    return [
        Increase(tenant, scope, period, start, tokens)
        for (scope, period, start, tenant), tokens in sorted(sums.items())
        if tokens
    ]

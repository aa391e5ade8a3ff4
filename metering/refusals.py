"""Refusals that are counted by the minute instead of kept one by one, so that a flood fills no table.

What an unknown key has asked for is counted by source. A known key's refusals are ledger rows up to 60 a
minute; beyond that they are counted by key. What may hold a reservation is always a row: its row frees it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from attrs import define, field

from authz.identity.sources import source
from metering.days import moment_of
from metering.rows import KeyMinute, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from metering.rows import LedgerRow

KEPT_PER_MINUTE: Final = 60

_MAY_HOLD: Final = frozenset({"limiter_unavailable", "store_unavailable", "overloaded", "client_gone"})
"""Reasons of a denial after which Redis may have admitted the request all the same."""


@define
class Sorted:
    """Rows for the ledger, and how often each refusal is only counted."""

    rows: dict[UUID, LedgerRow] = field(factory=dict)
    counts: Counter[Refused] = field(factory=Counter)

    def refused(self) -> list[Refused]:
        """Return the rows to add to refusals_per_minute, in the order in which they are locked."""
        found = [one._replace(refusals=count) for one, count in self.counts.items()]
        return sorted(found, key=lambda one: (one.minute, str(one.key_id), str(one.source), one.reason))


def key_minutes(rows: Iterable[LedgerRow]) -> set[KeyMinute]:
    """Return the keys and minutes whose refusals in the ledger must be counted first."""
    return {(row.key_id, _minute(row)) for row in rows if row.key_id is not None and _is_plain_denial(row)}


def sort_out(rows: Mapping[UUID, LedgerRow], kept: Mapping[KeyMinute, set[UUID]]) -> Sorted:
    """Separate rows of the ledger from what is only counted; kept are refusals that it has already."""
    found, seen = Sorted(), defaultdict(set, {pair: set(ids) for pair, ids in kept.items()})
    for request_id, row in rows.items():
        if _is_unowned(row):
            # Probes of public routes are no refusals, and belong to no tenant.
            if row.outcome != "completed":
                found.counts[_refused(row)] += 1
        elif row.key_id is None or not _is_plain_denial(row):
            found.rows[request_id] = row
        else:
            ids = seen[row.key_id, _minute(row)]
            if request_id in ids or len(ids) < KEPT_PER_MINUTE:
                ids.add(request_id)
                found.rows[request_id] = row
            else:
                found.counts[_refused(row)] += 1
    return found


def _is_unowned(row: LedgerRow) -> bool:
    return row.key_id is None and row.reserved_input is None


def _is_plain_denial(row: LedgerRow) -> bool:
    """Return whether authz has denied a known key, and nothing can have been admitted or charged."""
    return row.outcome == "denied" and row.reserved_input is None and row.reason not in _MAY_HOLD


def _refused(row: LedgerRow) -> Refused:
    name = source(row.ip or "") if row.key_id is None else ""
    return Refused(
        minute=_minute(row),
        tenant_id=row.tenant_id,
        key_id=row.key_id,
        source=ip_network(name) if name else None,
        reason=row.reason or row.outcome,
        refusals=0,
    )


def _minute(row: LedgerRow) -> datetime:
    """Return the minute in which a request came, by its id."""
    return moment_of(row.request_id).replace(second=0, microsecond=0)

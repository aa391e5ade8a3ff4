"""Ledger rows that no line stands for, as dead letters keep them: as JSON, by the names of their columns."""

from __future__ import annotations

from typing import Final, get_type_hints

import msgspec

from metering.rows import LedgerRow

REASON: Final = "row_"
"""The reason of a dead letter that is a row begins with this; the row's outcome follows."""

_TYPES: Final = get_type_hints(LedgerRow)


def reason_of(row: LedgerRow) -> str:
    """Return the reason under which a row is set aside."""
    return f"{REASON}{row.outcome}"


def written(row: LedgerRow) -> bytes:
    """Write a row; what is not known is left out."""
    return msgspec.json.encode({name: value for name, value in row._asdict().items() if value is not None})


def read(raw: bytes) -> LedgerRow | None:
    """Read a row; None if it lacks what a row must have. Skips columns that are not known."""
    try:
        found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        known = found.keys() & _TYPES.keys()
        return LedgerRow(**{name: msgspec.json.decode(found[name], type=_TYPES[name]) for name in known})
    except (msgspec.DecodeError, TypeError):
        return None

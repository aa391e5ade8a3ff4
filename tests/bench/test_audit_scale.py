"""`just audit-scale`: a sample of it, small enough for every run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import asyncpg

from tests.bench.audit_scale import Auditor, look_at
from tests.bench.great_ledger import GreatLedger


async def test_what_is_altered_in_thousands_of_rows_is_named(
    owner_of_tables: asyncpg.Connection, database: str, tmp_path: Path
) -> None:
    """A whole ledger is whole; a row altered, removed, invented and two swapped are named, and no other."""
    great = GreatLedger.ending(datetime.now(UTC), owner_of_tables, rows=10_000, per_link=70)
    slow = await look_at(great, Auditor(tmp_path, database, owner_of_tables))
    assert not [sentence for sentence in slow if "MiB" in sentence]

"""Ledger rows as metering adds them, without a journal."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import asyncpg
from attrs import define, field

from authz.types import Identity
from metering.ledger_store import LedgerStore as Metering
from metering.outbox import OutboxRow
from metering.rollup import uses
from metering.rows import LedgerRow
from metering.windows import increases
from tests.authz.asking import BOOT, NODE, uuid7

START = datetime(2026, 11, 24, 23, 59, tzinfo=UTC)
"""A minute before midnight."""


@define
class Book:
    """Adds rows to the ledger and what metering keeps beside it."""

    store: Metering
    owner: asyncpg.Connection
    rows: list[LedgerRow] = field(factory=list)

    async def add(self, *rows: LedgerRow) -> None:
        """Settle rows, and say that Redis knows."""
        async with self.store.transaction():
            for day in {row.partition for row in rows}:
                await self.store.ensure_partition(day)
            for entry in (0, 1):
                await self.store.add_ledger([row for row in rows if row.entry == entry])
            await self.store.add_uses(uses(rows))
            await self.store.published(
                OutboxRow(row.tenant_id, row.request_id, row.entry) for row in rows if row.tenant_id
            )
        self.rows += rows

    async def settle(self, *rows: LedgerRow) -> None:
        """Add rows and what they take of the windows of their day and month."""
        await self.add(*rows)
        await self.store.raise_windows(increases(rows))

    async def drop(self, day: date) -> None:
        """Drop a day, as its owner may."""
        await self.owner.execute(f"DROP TABLE ledger_{day:%Y%m%d}")


def served(owner: Identity, at: datetime, **fields: Any) -> LedgerRow:
    """The row of a request that a backend has answered: 10 + 20 tokens."""
    row = LedgerRow(
        request_id=uuid7(int(at.timestamp() * 1000)),
        entry=0,
        at=at,
        node=NODE,
        boot=BOOT,
        ip="203.0.113.9",
        lookup=owner.lookup,
        tenant_id=owner.tenant,
        key_id=owner.key,
        method="POST",
        path="/api/chat",
        model="llama3.2",
        backend="local",
        outcome="completed",
        status=200,
        input_tokens=10,
        output_tokens=20,
        usage_source="reported",
    )
    return row._replace(**fields)


def denied(owner: Identity, at: datetime, **fields: Any) -> LedgerRow:
    """The row of a request that authz has refused."""
    refused: dict[str, Any] = {
        "backend": None,
        "outcome": "denied",
        "reason": "model_not_allowed",
        "status": 403,
        "input_tokens": 0,
        "output_tokens": 0,
        "usage_source": "none",
    }
    return served(owner, at, **refused | fields)


def anything(owner: Identity, number: int) -> LedgerRow:
    """Any row of six days of November 2026: served, refused, orphaned or adjusted, of someone or no one."""
    at = datetime(2026, 11, 20 + number * 5 % 6, number * 7 % 24, 30, tzinfo=UTC)
    tokens = {"input_tokens": number * 37 % 100, "output_tokens": number * 53 % 101}
    model = ("llama3.2", "LLAMA3.2:latest", "qwen3:8b", None)[number // 4 % 4]
    taken_back = {name: -value for name, value in tokens.items()}
    return (
        served(owner, at, model=model, end_user=(None, "alice", "bob")[number // 16 % 3], **tokens),
        denied(owner, at, model=model),
        served(owner, at, model=None, backend=None, outcome="orphaned", **tokens),
        served(owner, at, entry=1, model=model, **taken_back),
    )[number % 4]

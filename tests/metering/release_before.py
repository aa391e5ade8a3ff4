"""Metering as the release before runs it on Postgres: its queries, its role, its order, its columns.

The files of `before` are that release's sql/queries, to the letter: a release replaces them by those of the
one that it follows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import aiosql
import asyncpg
from attrs import define

from metering.cost import cost
from metering.figures import Ratios
from metering.journal import Page, understand
from metering.journal_store import JournalStore
from metering.ledger import open_row, settlement
from metering.rollup import uses
from metering.rows import LedgerRow, Owner
from metering.sequences import Sequence, advanced
from metering.tail import Tail
from metering.windows import increases
from tests.metering.writing import KEY, NODE, TENANT, JournalFile

ROLE = "gateway_service"
FILES = ("journal", "ledger", "books", "authz", "admin")
LEDGER_COLUMNS = [
    "request_id",
    "entry",
    "at",
    "node",
    "boot",
    "seq",
    "ip",
    "lookup",
    "tenant_id",
    "key_id",
    "method",
    "path",
    "model",
    "backend",
    "stream",
    "outcome",
    "reason",
    "status",
    "upstream_status",
    "reserved_input",
    "reserved_output",
    "day",
    "month",
    "max_output",
    "terminal",
    "reported_input_tokens",
    "reported_output_tokens",
    "cached_tokens",
    "deltas",
    "output_bytes",
    "prompt_bytes",
    "images",
    "ttft_ms",
    "duration_ms",
    "load_ms",
    "prompt_eval_ms",
    "eval_ms",
    "input_tokens",
    "output_tokens",
    "overrun_tokens",
    "usage_source",
    "input_bytes_per_token",
    "output_bytes_per_token",
    "output_tokens_per_delta",
    "output_tokens_per_s",
]


def queries(name: str) -> Any:
    """The queries of one of its files."""
    return aiosql.from_path(Path(__file__).with_name("before") / f"{name}.sql", "asyncpg")


@define
class ReleaseBefore:
    """Settles a node's journal from where Postgres says that it is read."""

    journal: JournalFile
    connection: asyncpg.Connection

    async def settle(self) -> int:
        """Commit all that there is to read, as one batch; returns how many ledger rows are new."""
        marks, ledger = queries("journal"), queries("ledger")
        tail = Tail.resume(self.journal.path, await JournalStore(self.connection).marks(NODE))
        chunk = tail.read()
        tail.close()
        assert chunk is not None
        page = understand(chunk.lines)
        async with self.connection.transaction():
            assert await marks.move_mark(
                self.connection,
                node=NODE,
                fingerprint=chunk.after.fingerprint,
                generation=chunk.after.generation,
                name=chunk.after.name,
                position=chunk.after.position,
                marker=chunk.after.marker,
                is_finished=chunk.after.is_finished,
                before=chunk.before.position,
            )
            added = await self._settle(ledger, page)
            known = [
                Sequence(row["boot"], row["next"], tuple(row["ahead"]), row["lost"])
                async for row in marks.sequences(self.connection, node=NODE)
            ]
            for sequence in advanced({each.boot: each for each in known}, page, NODE):
                await marks.set_sequences(
                    self.connection,
                    node=NODE,
                    boot=sequence.boot,
                    next=sequence.next,
                    ahead=list(sequence.ahead),
                    lost=sequence.lost,
                )
        return len(added)

    async def _settle(self, ledger: Any, page: Page) -> list[LedgerRow]:
        owner, ratios = Owner(TENANT, KEY), Ratios()
        rows = [settlement(line, owner, ratios, cost(line.record, ratios)) for line in page.ended]
        ended = [row.request_id for row in rows]
        opened = [_open_tuple(line) for line in page.opens if line.id not in ended]
        await ledger.add_open(self.connection, rows=opened)
        await ledger.end_open(self.connection, ids=ended)
        for day in {row.partition for row in rows}:
            await ledger.ensure_partition(self.connection, day=day)
        new = await self._added(ledger, rows)
        added = [row for row in rows if row.request_id in new]
        await ledger.add_uses(self.connection, rows=[tuple(use) for use in uses(added)])
        raised = increases(added)
        totals = ledger.raise_windows(
            self.connection,
            scopes=[each.scope for each in raised],
            periods=[each.period for each in raised],
            starts=[each.start for each in raised],
            tenants=[each.tenant for each in raised],
            used=[each.tokens for each in raised],
        )
        assert len(raised) == len([total async for total in totals])
        return added

    async def _added(self, ledger: Any, rows: list[LedgerRow]) -> set[UUID]:
        whole = [tuple(getattr(row, name) for name in LEDGER_COLUMNS) for row in rows]
        return {row["request_id"] async for row in ledger.add_ledger(self.connection, rows=whole)}


def _open_tuple(line: Any) -> tuple[object, ...]:
    row = open_row(line)
    terms = (row.reserved_input, row.reserved_output, row.day, row.month, row.deadline)
    return (row.request_id, row.node, row.boot, row.owner.tenant, row.owner.key, *terms)

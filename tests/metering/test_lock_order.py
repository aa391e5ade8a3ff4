"""No statement waits for a row while it holds a later one: so that no two can wait for each other.

Whatever the plan: rows lie on disk in the other order, and no index is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from attrs import define, field, frozen

import sql
from metering.rows import LedgerRow
from tests.metering.writing import DAY_MS, START, uuid7

IDS = [uuid7(DAY_MS, number) for number in (1, 2)]
NIL = UUID(int=0)
DAY = date(2026, 11, 25)
LONG_AGO = START - timedelta(days=365)
WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)"


@frozen
class Case:
    """A statement that changes two rows; how a row is made, and how another session holds one.

    Both take the row's number: 0 is the one that is locked first.
    """

    file: str
    query: str
    hold: str
    make: str = ""
    parameters: dict[str, Any] = field(factory=dict)
    row: Callable[[int], tuple[object, ...]] = lambda number: (IDS[number],)


def ledger_columns() -> dict[str, Sequence[object]]:
    """Two ledger rows, the later one first."""
    rows = [LedgerRow(each, 0, START, NIL, NIL, tenant_id=NIL, key_id=NIL) for each in IDS[::-1]]
    return dict(zip(LedgerRow._fields, zip(*rows, strict=True), strict=True))


# Each of a node of its own: who adds to the chain of a node waits for its other writers, row or not.
LEDGER = """
    INSERT INTO ledger (
        request_id, entry, at, node, boot, tenant_id, key_id, outcome, input_tokens, output_tokens,
        usage_source
    )
    SELECT $1, 0, now(), gen_random_uuid(), id, id, id, 'completed', 1, 1, 'reported'
    FROM (SELECT '00000000-0000-0000-0000-000000000000'::uuid AS id) AS i
"""
OUTBOX = """
    INSERT INTO unpublished (request_id, entry, tenant_id, key_id)
    SELECT $1, 0, id, id FROM (SELECT '00000000-0000-0000-0000-000000000000'::uuid AS id) AS i
"""
WINDOW = """
    INSERT INTO budget_windows (scope_id, period, start, tenant_id, used)
    VALUES ($1, 'day', $2, '00000000-0000-0000-0000-000000000000', 1)
"""
LETTER = """
    INSERT INTO dead_letters (id, node, fingerprint, generation, position, length, sha256, reason, raw, at)
    OVERRIDING SYSTEM VALUE
    SELECT $1::bigint, gen_random_uuid(), '', 0, 0, 1, '', 'not_json', 'x', '2020-01-01'
"""
OPEN = """
    INSERT INTO open_requests (
        request_id, node, boot, tenant_id, key_id, reserved_input, reserved_output, day, month, deadline
    )
    SELECT $1, id, id, id, id, 1, 1, '2026-11-25', '2026-11-01', '2020-01-01'
    FROM (SELECT '00000000-0000-0000-0000-000000000000'::uuid AS id) AS i
"""
SEQUENCE = """
    INSERT INTO journal_sequences (node, boot, next)
    SELECT '00000000-0000-0000-0000-000000000000', boot, 1
    FROM unnest(ARRAY[$1, 'a0000000-0000-7000-8000-000000000000'::uuid]) AS b (boot)
    ON CONFLICT DO NOTHING
"""
HOLD_LETTER = "SELECT FROM dead_letters WHERE id = $1 FOR UPDATE"
HOLD_WINDOW = "SELECT FROM budget_windows WHERE scope_id = $1 AND start = $2 FOR UPDATE"
SCOPES = {"scopes": IDS[::-1], "periods": ["day", "day"], "starts": [DAY, DAY]}


def numbered(number: int) -> tuple[object, ...]:
    """The id of a dead letter."""
    return (number + 1,)


def window_of(day: date) -> Callable[[int], tuple[object, ...]]:
    """The scope and the start of a window."""
    return lambda number: (IDS[number], day)


CASES = (
    Case("ledger", "add_ledger", hold=LEDGER, parameters=ledger_columns()),
    Case("ledger", "add_ledger", hold=OUTBOX, parameters=ledger_columns()),
    Case(
        "ledger",
        "publish_again",
        make=LEDGER,
        hold=OUTBOX,
        parameters={"ids": IDS, "first": IDS[0], "until": uuid7(DAY_MS + 1, 0)},
    ),
    Case(
        "ledger",
        "published",
        make=OUTBOX,
        hold="SELECT FROM unpublished WHERE request_id = $1 FOR UPDATE",
        parameters={"tenants": [NIL] * 2, "ids": IDS[::-1], "entries": [0, 0]},
    ),
    Case(
        "ledger",
        "raise_windows",
        make=WINDOW,
        hold=HOLD_WINDOW,
        parameters={**SCOPES, "tenants": [NIL] * 2, "used": [1, 1]},
        row=window_of(DAY),
    ),
    Case(
        "ledger",
        "take_overdue",
        make=OPEN,
        hold="SELECT FROM open_requests WHERE request_id = $1 FOR UPDATE",
        parameters={"node": NIL, "before": START},
    ),
    Case(
        "books",
        "outbid",
        make=WINDOW,
        hold=HOLD_WINDOW,
        parameters={**SCOPES, "versions": [5, 5]},
        row=window_of(DAY),
    ),
    Case(
        "books",
        "lock_windows",
        make=WINDOW,
        hold=HOLD_WINDOW,
        parameters={"tenant": NIL, "first": DAY},
        row=window_of(DAY),
    ),
    Case(
        "journal",
        "letters_replayed",
        make=LETTER,
        hold=HOLD_LETTER,
        parameters={"understood": [1], "tried": [2, 1]},
        row=numbered,
    ),
    Case("admin", "want_replay", make=LETTER, hold=HOLD_LETTER, parameters={"ids": None}, row=numbered),
    Case(
        "retention",
        "forget_letters",
        make=LETTER,
        hold=HOLD_LETTER,
        parameters={"before": DAY, "count": 9},
        row=numbered,
    ),
    Case(
        "retention",
        "forget_windows",
        make=WINDOW,
        hold=HOLD_WINDOW,
        parameters={"before": DAY, "count": 9},
        row=window_of(LONG_AGO.date()),
    ),
    Case(
        "retention",
        "forget_refusals",
        make="INSERT INTO refusals_per_minute (minute, key_id, reason, refusals) VALUES ($1, NULL, 'r', 1)",
        hold="SELECT FROM refusals_per_minute WHERE minute = $1 FOR UPDATE",
        parameters={"before": DAY, "count": 9},
        row=lambda number: (LONG_AGO + timedelta(minutes=number),),
    ),
    Case(
        "retention",
        "forget_sequences",
        make=SEQUENCE,
        hold="SELECT FROM journal_sequences WHERE boot = $1 FOR UPDATE",
        parameters={"before": date(9999, 1, 1)},
    ),
)


@define
class Sessions:
    """One that holds a row, one that runs the statement, and one that looks."""

    holder: asyncpg.Connection
    runner: asyncpg.Connection
    looker: asyncpg.Connection

    async def run(self, case: Case) -> None:
        """Run the statement in a transaction that stays open."""
        found = getattr(sql.load(case.file), case.query)(self.runner, **case.parameters)
        if isinstance(found, AsyncIterator):
            async for _ in found:
                pass
        else:
            await found

    async def is_waiting(self, running: asyncio.Task[None]) -> bool:
        """Whether it waits for the holder; False if it has ended."""
        while not running.done():
            if await self.looker.fetchval(WAITS, self.runner.get_server_pid()):
                return True
            await asyncio.sleep(0.01)
        await running
        return False


@pytest.fixture
async def sessions(database: str) -> AsyncIterator[Sessions]:
    """Sessions whose plans use no index."""
    opened = [await asyncpg.connect(database) for _ in range(3)]
    for each in ("indexscan", "bitmapscan", "nestloop", "indexonlyscan"):
        await opened[1].execute(f"SET enable_{each} = off")
    await opened[2].execute("SET lock_timeout = '500ms'")
    await opened[2].execute("SELECT ensure_ledger_partition('2026-11-25')")
    yield Sessions(*opened)
    for connection in opened:
        await connection.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.query)
async def test_rows_are_locked_in_one_order(sessions: Sessions, case: Case) -> None:
    """Where the first row is held by another, the statement has the second one not yet, or does not wait."""
    if case.make:
        for number in (1, 0):
            await sessions.looker.execute(case.make, *case.row(number))
    holding, transaction = sessions.holder.transaction(), sessions.runner.transaction()
    await holding.start()
    await transaction.start()
    await sessions.holder.execute(case.hold, *case.row(0))
    running = asyncio.create_task(sessions.run(case))
    if await sessions.is_waiting(running):
        await sessions.looker.execute(case.hold, *case.row(1))
    await holding.rollback()
    await running
    await transaction.rollback()

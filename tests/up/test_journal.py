"""The journal of a running stack: whatever becomes of its file, what was served is on the bill."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.up.stacks import Stack, until

pytestmark = pytest.mark.timeout(300)

SERVED = 200


async def _billed(stack: Stack) -> int:
    url = json.loads((stack.state / "stores.json").read_bytes())["database_url"]
    ledger = await asyncpg.connect(url)
    try:
        count: int = await ledger.fetchval(
            "SELECT count(*) FROM ledger WHERE outcome = 'completed' AND output_tokens > 0"
        )
    finally:
        await ledger.close()
    return count


def _is_settled(stack: Stack) -> bool:
    found = stack.status()["bill"]
    return found is not None and found["lag_bytes"] == found["open_requests"] == found["unpublished"] == 0


@pytest.mark.parametrize(
    "lose",
    [Path.unlink, lambda path: path.rename(path.with_name("mine")), lambda path: os.truncate(path, 0)],
    ids=["removed", "moved", "cut"],
)
async def test_what_is_served_after_the_journal_was_lost_is_billed(
    stack: Stack, lose: Callable[[Path], object]
) -> None:
    """With the file removed, moved or cut and metering killed, every answer is billed once, or refused."""
    stack.up()
    assert SERVED == stack.chat_status()
    until(lambda: _is_settled(stack))
    lose(stack.state / "journal" / "journal.log")
    metering = stack.pid("metering")
    assert metering is not None
    os.kill(metering, signal.SIGKILL)
    served = [stack.chat_status() for _ in range(5)].count(SERVED)
    until(lambda: stack.pid("metering") not in {None, metering})
    until(lambda: _is_settled(stack))
    until(lambda: stack.status()["ready"])
    assert 1 + served == await _billed(stack)
    found = stack.status()
    assert 0 == found["bill"]["orphaned_requests"]
    assert {"is_open": True, "reopened": 1, "records_by_guard": 0, "suspects": []} == {
        name: found["journal"][name] for name in ("is_open", "reopened", "records_by_guard", "suspects")
    }


def test_status_shows_the_journal(running: Stack) -> None:
    """People and programs see the path of the journal, and that nothing is wrong with it."""
    assert SERVED == running.chat_status()
    assert {
        "path": str(running.state / "journal" / "journal.log"),
        "is_open": True,
        "reopened": 0,
        "records_by_guard": 0,
        "foreign_lines": 0,
        "suspects": [],
    } == running.status()["journal"]
    text = running.run("status").stdout
    assert "records by the guard" in text

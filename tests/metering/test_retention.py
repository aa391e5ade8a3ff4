"""What is kept when days of the ledger go."""

from __future__ import annotations

from datetime import date

import pytest

from authz import settings
from authz.errors import SettingsError
from metering.retention import keep_ledger
from tests.metering.conftest import Begin, Life
from tests.metering.test_refusals import STRANGER, ask
from tests.metering.writing import DAY_MS, KEY, JournalFile

TODAY = date(2026, 11, 25)
DAY = 86_400_000
URLS = {"DATABASE_URL": "postgresql://x@/x", "REDIS_URL": "unix:///x"}


async def kept(life: Life) -> dict[str, int]:
    """How many rows there are of what has a date."""
    tables = ("ledger", "refusals_per_minute", "usage_daily", "budget_windows", "admin_audit")
    return {table: await life.count(table) for table in tables}


async def test_only_requests_and_counts_of_refusals_go(begin: Begin, journal: JournalFile) -> None:
    """The day on which the policy begins stays, the one before goes; sums, windows and changes stay."""
    for days in (31, 30, 0):
        journal.append(journal.ended(journal.new_id(at_ms=DAY_MS - days * DAY)))
        ask(journal, STRANGER, after_ms=-days * DAY)
    life = await begin()
    await life.drain()
    await life.ledger.execute("INSERT INTO admin_audit (at, actor, action) VALUES ('2020-01-01', 'a', 'b')")
    before = await kept(life)
    await keep_ledger(life.store, TODAY, ledger_days=30)
    assert before | {"ledger": 2, "refusals_per_minute": 2} == await kept(life)
    assert (3, 3) == (before["ledger"], before["usage_daily"])
    assert 90 == (await life.windows())[KEY, "total"]


async def test_nothing_goes_without_a_policy(begin: Begin, journal: JournalFile) -> None:
    """By default the ledger is kept for ever."""
    journal.append(journal.ended(journal.new_id(at_ms=DAY_MS - 3000 * DAY)))
    ask(journal, STRANGER, after_ms=-3000 * DAY)
    life = await begin()
    await life.drain()
    before = await kept(life)
    await keep_ledger(life.store, TODAY, ledger_days=None)
    assert before == await kept(life)


@pytest.mark.parametrize(
    ("said", "days"), [({}, 0), ({"GATEWAY_LEDGER_DAYS": "0"}, 0), ({"GATEWAY_LEDGER_DAYS": "90"}, 90)]
)
def test_the_policy_is_a_setting(said: dict[str, str], days: int) -> None:
    """GATEWAY_LEDGER_DAYS says how many days stay; 0, the default, keeps all."""
    assert days == settings.load(URLS | said).ledger_days


@pytest.mark.parametrize("said", ["-1", "ever", "1.5"])
def test_a_policy_that_is_none_is_refused(said: str) -> None:
    """Rather no start than a ledger dropped by mistake."""
    with pytest.raises(SettingsError, match="GATEWAY_"):
        settings.load(URLS | {"GATEWAY_LEDGER_DAYS": said})

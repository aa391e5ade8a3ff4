"""Budgets of which little is left are found: in the window that is current where the tenant is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from authz.types import TOTAL_START
from metering.books import Books
from metering.budgets import BudgetUse
from metering.metrics import Metrics

TODAY = date(2026, 11, 25)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
EVENING = datetime(2026, 11, 30, 18, tzinfo=UTC)
"""In Tokyo a day, and a month, have begun that UTC does not have yet."""


@pytest.fixture
async def books(database: str) -> AsyncIterator[Books]:
    """The books, as metering's role sees them."""
    opened = await Books.connect(database)
    yield opened
    await opened.close()


async def spend(
    database: str, *, tenant: str, used: int, at: dict[str, date], key: str | None = None
) -> None:
    """Give a tenant, or a key of it, a budget of 1,000 tokens in each window, and use so much of it."""
    connection = await asyncpg.connect(database)
    zone = "Asia/Tokyo" if tenant == "tokyo" else "UTC"
    state = "disabled" if tenant == "former" else "active"
    budget = None if key else 1000
    owner = await connection.fetchval(
        "INSERT INTO tenants (id, name, timezone, state, tokens_per_day, tokens_per_month, tokens_total) "
        "VALUES (gen_random_uuid(), $1, $2, $3, $4, $4, $4) RETURNING id",
        tenant, zone, state, budget,
    )  # fmt: skip
    scope: UUID = owner
    if key:
        scope = await connection.fetchval(
            "INSERT INTO keys (id, tenant_id, name, tokens_per_day) "
            "VALUES (gen_random_uuid(), $1, $2, 1000) RETURNING id",
            owner, key,
        )  # fmt: skip
    await connection.executemany(
        "INSERT INTO budget_windows (scope_id, period, start, tenant_id, used) VALUES ($1, $2, $3, $4, $5)",
        [(scope, period, start, owner, used) for period, start in at.items()],
    )
    await connection.close()


@pytest.mark.parametrize(("used", "reached"), [(794, 0), (795, 80), (800, 80), (994, 80), (995, 100)])
async def test_parts_are_rounded(database: str, books: Books, used: int, reached: int) -> None:
    """80 and 100 %, each from half a percent below: the last tokens of a budget fit no request."""
    await spend(database, tenant="acme", used=used, at={"day": TODAY})
    found = await books.budgets_used(NOON, 79.5)
    assert [reached] * bool(reached) == [each.reached for each in found]


async def test_every_window_of_a_tenant_and_a_key(database: str, books: Books) -> None:
    """Day, month and total of a tenant and of a key; other days and what is disabled do not count."""
    windows = {"day": TODAY, "month": TODAY.replace(day=1), "total": TOTAL_START}
    await spend(database, tenant="acme", used=900, at=windows)
    await spend(database, tenant="bolt", used=1000, at={"day": TODAY}, key="first")
    await spend(
        database, tenant="calm", used=1000, at={"day": date(2026, 11, 24), "month": date(2026, 10, 1)}
    )
    await spend(database, tenant="former", used=1000, at=windows)
    assert [
        *(BudgetUse("acme", None, period, start, 900, 1000) for period, start in windows.items()),
        BudgetUse("bolt", "first", "day", TODAY, 1000, 1000),
    ] == await books.budgets_used(NOON, 79.5)


async def test_days_are_the_tenants(database: str, books: Books) -> None:
    """A tenant's day and month begin in its own time zone."""
    await spend(database, tenant="tokyo", used=900, at={"day": date(2026, 12, 1), "month": date(2026, 12, 1)})
    assert ["day", "month"] == [each.period for each in await books.budgets_used(EVENING, 79.5)]
    assert [] == await books.budgets_used(NOON, 79.5)


def test_figures_that_are_unknown_raise_no_alarm() -> None:
    """Lost lines have no sample until they are counted: an increase since NaN would be NaN for an hour."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.counted_budgets([BudgetUse("acme", None, "day", TODAY, used, 1000) for used in (800, 1000)])
    assert "\ngateway_sequence_gaps_total" not in metrics.text().decode()
    reached = [registry.get_sample_value("gateway_budgets", {"used": used}) for used in ("80", "100")]
    assert [2, 1] == reached

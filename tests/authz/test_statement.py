"""A month of a tenant as a bill: by key and model, in its own time zone."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest

from authz.__main__ import run
from authz.accounts.credits import credit_tenant
from authz.accounts.keys import create_key
from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.admin.statement import Item, Statement, statement
from authz.store import Store
from authz.types import Identity
from tests.authz.billing import Book, served
from tests.authz.conftest import known

LAST = datetime(2026, 11, 30, 12, tzinfo=UTC)  # already December in Auckland
NOVEMBER, DECEMBER = date(2026, 11, 1), date(2026, 12, 1)


@pytest.fixture
async def billed(session: Session, store: Store, book: Book, owner: Identity) -> Identity:
    """Two keys: one used two names of a model in November, the other one on the first of December."""
    await set_tenant_limits(session, "acme", limits=lambda old: old, timezone="Pacific/Auckland")
    other = await known(store, (await create_key(session, tenant="acme", name="second")).prefix)
    day = date(2026, 11, 30)
    early = LAST.replace(hour=1)
    await book.settle(
        served(owner, early, day=day, month=NOVEMBER),
        served(owner, early, day=day, month=NOVEMBER, model="library/LLAMA3.2"),
        served(other, LAST, day=DECEMBER, month=DECEMBER, model="qwen3:8b"),
    )
    await credit_tenant(session, "acme", prefix=None, tokens=5, reason="too many", at=early)
    return owner


async def test_a_statement_is_a_month_of_the_tenant(session: Session, billed: Identity) -> None:
    """One item per key and model, credits among them; the sum is what the budget of the month counted."""
    assert Statement(
        "acme",
        "2026-11",
        "Pacific/Auckland",
        [
            Item("", "(credits)", "", 0, 0, -5, -5),
            Item(billed.lookup, "first", "llama3.2:latest", 2, 20, 40, 60),
        ],
        55,
        55,
    ) == await statement(session, "acme", NOVEMBER)
    december = await statement(session, "acme", DECEMBER)
    assert ([("second", "qwen3:8b", 30)], 30, 30) == (
        [(item.name, item.model, item.tokens) for item in december.items],
        december.tokens,
        december.budget_tokens,
    )


@pytest.mark.usefixtures("outside", "billed")
def test_a_statement_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As a table that ends in the sum, as JSON, and for a month without use."""
    command = ["usage", "statement", "--tenant", "acme", "--month"]
    assert 0 == run([*command, "2026-11"])
    assert capsys.readouterr().out.endswith("acme, 2026-11 (Pacific/Auckland): 55 tokens in all.\n")
    assert 0 == run([*command, "2026-11", "--json"])
    assert 55 == json.loads(capsys.readouterr().out)["tokens"]
    assert 0 == run([*command, "2025-01"])
    assert "acme was billed nothing in 2025-01." in capsys.readouterr().out


@pytest.mark.usefixtures("outside", "billed")
@pytest.mark.parametrize("month", ["2026-13", "november", "2026-11-05", ""])
def test_a_wrong_month_is_one_sentence(month: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no month says how to write one."""
    assert 1 == run(["usage", "statement", "--tenant", "acme", "--month", month])
    assert f"error: --month {month} is no month: write it like 2026-11.\n" == capsys.readouterr().err

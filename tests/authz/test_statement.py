"""A month of a tenant as a bill: by key and model, in its own time zone."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import asyncpg
import pytest
from attrs import astuple

from authz.__main__ import run
from authz.accounts.credits import credit_tenant
from authz.accounts.keys import create_key
from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.admin import statement_page
from authz.admin.statement import statement
from authz.admin.statement_values import Completeness, Item, Source, Statement, Tokens
from authz.store import Store
from authz.types import Identity
from tests.authz.asking import BOOT, NODE
from tests.authz.billing import Book, served
from tests.authz.conftest import known

LAST = datetime(2026, 11, 30, 12, tzinfo=UTC)  # already December in Auckland
SEQUENCE = (
    "INSERT INTO journal_sequences (node, boot, next, ahead, lost) SELECT node, node, 9, '{12}', 2 FROM nodes"
)
LETTER = (
    "INSERT INTO dead_letters (node, fingerprint, generation, position, length, sha256, reason, raw) "
    "SELECT node, '', 0, 0, 1, '', 'not_json', 'x' FROM nodes"
)
OVER = datetime(2027, 1, 2, tzinfo=UTC)
NOVEMBER, DECEMBER = date(2026, 11, 1), date(2026, 12, 1)


@pytest.fixture
async def billed(session: Session, store: Store, book: Book, owner: Identity) -> Identity:
    """Two keys: one used two names of a model in November, the other one on the first of December."""
    await set_tenant_limits(session, "acme", limits=lambda old: old, timezone="Pacific/Auckland")
    other = await known(store, (await create_key(session, tenant="acme", name="second")).prefix)
    day = date(2026, 11, 30)
    early = LAST.replace(hour=1)
    await book.settle(
        served(owner, early, day=day, month=NOVEMBER, load_ms=900, prompt_eval_ms=300, eval_ms=1400),
        served(owner, early, day=day, month=NOVEMBER, model="library/LLAMA3.2"),
        served(other, LAST, day=DECEMBER, month=DECEMBER, model="qwen3:8b"),
    )
    await credit_tenant(session, "acme", prefix=None, tokens=5, reason="too many", at=early)
    return owner


async def test_a_statement_is_a_month_of_the_tenant(session: Session, billed: Identity) -> None:
    """One item per key and model, credits among them; the sum is what the budget of the month counted."""
    november = await statement(session, "acme", NOVEMBER, OVER)
    assert [
        Item("(credits)", "", "", 0, 0, -5, -5),
        Item("first", billed.lookup, "llama3.2:latest", 2, 20, 40, 60, 1.7),
    ] == november.items
    assert ("acme", "2026-11", "Pacific/Auckland", 55, 0) == (
        *(november.tenant, november.month, november.timezone),
        *(november.tokens, november.completeness.drift_tokens),
    )
    assert [Source("corrected", 0, -5), Source("reported", 2, 60)] == november.sources
    assert [("2026-11-30", 20, 35)] == [astuple(day) for day in november.days]
    december = await statement(session, "acme", DECEMBER, OVER)
    assert ([("second", "qwen3:8b", 30)], 30, 0) == (
        [(item.key, item.model, item.tokens) for item in december.items],
        december.tokens,
        december.completeness.drift_tokens,
    )


async def test_a_statement_is_final_once_every_journal_is_beyond_the_month(
    session: Session, billed: Identity, owner_of_tables: asyncpg.Connection
) -> None:
    """The month is over where the tenant is, each node that may still write is read, and nothing runs."""
    end = datetime(2026, 11, 30, 11, tzinfo=UTC)

    async def found(now: datetime = OVER) -> str | None:
        made = await statement(session, "acme", NOVEMBER, now)
        assert made.is_final == (made.open is None)
        return made.open

    assert "The month is not over: it ends at 2026-11-30 11:00Z." == await found(end - timedelta(seconds=1))
    assert None is await found(end)
    add = "INSERT INTO nodes (node, boot, eof_at, retired_at) VALUES ($1, $1, $2, $3)"
    await owner_of_tables.execute(add, NODE, end - timedelta(seconds=1), None)
    await owner_of_tables.execute(add, BOOT, None, OVER)
    assert f"The journal of node {NODE} is not read beyond the month yet." == await found()
    await owner_of_tables.execute("UPDATE nodes SET eof_at = $1", end)
    runs = (
        "INSERT INTO open_requests (request_id, node, boot, tenant_id, key_id, reserved_input, "
        "reserved_output, day, month, deadline) VALUES ($1, $1, $1, $2, $2, 1, 1, $3, $3, now())"
    )
    await owner_of_tables.execute(runs, NODE, billed.tenant, NOVEMBER)
    assert "1 requests of the month still run." == await found()
    await owner_of_tables.execute("DELETE FROM open_requests")
    assert None is await found()


async def test_what_is_missing_is_said(
    session: Session, billed: Identity, owner_of_tables: asyncpg.Connection
) -> None:
    """Lost lines, lines that were not understood, another sum in the budget, days that the ledger lacks."""
    assert [] == (await statement(session, "acme", NOVEMBER, OVER)).notes
    for change in (
        "INSERT INTO nodes (node, boot, eof_at) SELECT id, id, now() FROM database_identity",
        SEQUENCE,
        LETTER,
        "UPDATE budget_windows SET used = used - 1",
        "DROP TABLE ledger_20261130",
    ):
        await owner_of_tables.execute(change)
    made = await statement(session, "acme", NOVEMBER, OVER)
    assert [(8, 2)] == [(journal.lines, journal.lost_lines) for journal in made.completeness.journals]
    assert [
        "2 lines of journals are lost, of all tenants.",
        "1 lines were not understood, of all tenants.",
        "The budget of the month counted -1 tokens: see gateway_drift_tokens.",
        "Sources and GPU seconds are of the days that the ledger still has.",
    ] == made.notes
    assert billed.lookup in {item.prefix for item in made.items}


@pytest.mark.usefixtures("outside", "billed")
def test_a_statement_is_a_page_and_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page needs nothing else, and says what the table and the sheet say."""
    sheet, page, notes = tmp_path / "s.csv", tmp_path / "s.html", tmp_path / "notes"
    notes.write_text("neuronetz-gateway checkpoint 1\nand so on\n")
    command = ["usage", "statement", "--tenant", "acme", "--month", "2026-11", "--checkpoint", str(notes)]
    assert 0 == run([*command, "--html", str(page), "--csv", str(sheet), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert hashlib.sha256(notes.read_bytes()).hexdigest() == shown["checkpoint_sha256"]
    with sheet.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [("-5", "acme"), ("60", "acme")] == [(row["tokens"], row["tenant"]) for row in rows]
    parsed = Page()
    parsed.feed(page.read_text())
    assert 30 == parsed.tags["rect"] // 2
    assert set() == {"script", "link", "img", "iframe"} & parsed.tags.keys()
    for words in ("55 tokens", "llama3.2:latest", "reported", "corrected", shown["checkpoint_sha256"]):
        assert any(words in text for text in parsed.texts), words


class Page(HTMLParser):
    """The tags and texts of a page; each tag that is opened is closed."""

    def __init__(self) -> None:
        """Begin an empty page."""
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count a tag; none of them names an address."""
        self.tags[tag] += 1
        assert {"src", "href"}.isdisjoint(dict(attrs))

    def handle_data(self, data: str) -> None:
        """Keep a text."""
        self.texts.append(data)


def test_a_name_on_a_page_is_no_markup() -> None:
    """A client chooses the model's name."""
    item = Item("first", "nz_AAAAAAAA", "<script>alert(1)</script>", 1, 1, 1, 2)
    empty = Completeness([], 0, 0, is_kept=True)
    made = Statement(
        tenant="acme",
        month="2026-02",
        timezone="UTC",
        made_at=OVER,
        open=None,
        items=[item],
        sources=[],
        days=[Tokens("2026-02-28", -5, 0)],
        tokens=2,
        completeness=empty,
    )
    assert "<script>" not in statement_page.page(made)
    assert "&lt;script&gt;alert(1)" in statement_page.page(made)


@pytest.mark.usefixtures("outside", "billed")
def test_a_statement_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """As a table that ends in the sum, as JSON, and for a month without use."""
    command = ["usage", "statement", "--tenant", "acme", "--month"]
    assert 0 == run([*command, "2026-11"])
    assert (
        capsys.readouterr()
        .out.partition("acme, 2026-11 (Pacific/Auckland): ")[2]
        .startswith("55 tokens in all.\nFinal: ")
    )
    assert 0 == run([*command, "2026-11", "--json"])
    assert 55 == json.loads(capsys.readouterr().out)["tokens"]
    assert 0 == run([*command, "2025-01"])
    assert "acme was billed nothing in 2025-01." in capsys.readouterr().out


@pytest.mark.usefixtures("outside", "billed")
@pytest.mark.parametrize("month", ["2026-13", "november", "2026-11-05", ""])
def test_a_wrong_month_is_one_sentence(month: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no month says how to write one."""
    assert 2 == run(["usage", "statement", "--tenant", "acme", "--month", month])
    assert f"error: --month {month} is no month: write it like 2026-11.\n" == capsys.readouterr().err

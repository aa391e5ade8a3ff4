"""Corrections: an entry of its own in the ledger, taken off the windows that paid, never below 0."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from authz.__main__ import run
from authz.accounts.credits import Credit, credit_request, credit_tenant
from authz.accounts.keys import create_key
from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.admin.usage import By, usage
from authz.errors import CommandError
from authz.store import METERING_ROLE, act_as
from authz.types import Identity
from metering.rows import LedgerRow, OpenRow, Owner
from tests.authz.asking import BOOT, NODE, uuid7
from tests.authz.billing import Book, served

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
WHY = "a cut answer was billed twice"
WINDOWS = "SELECT scope_id, period, start, used FROM budget_windows"


@pytest.fixture
async def billed(book: Book, owner: Identity) -> LedgerRow:
    """A request of 10 + 20 tokens, in its windows of the 25th of November."""
    row = served(owner, NOW, day=date(2026, 11, 25), month=date(2026, 11, 1))
    await book.settle(row)
    return row


async def used(connection: asyncpg.Connection) -> set[int]:
    """What the windows say."""
    return {row["used"] for row in await connection.fetch(WINDOWS)}


async def credit(session: Session, row: LedgerRow, tokens: int, reason: str = WHY) -> Credit:
    """Credit a request."""
    return await credit_request(session, row.request_id, tokens=tokens, reason=reason, at=NOW)


async def everything(connection: asyncpg.Connection) -> list[list[asyncpg.Record]]:
    """All that a correction writes."""
    tables = ("ledger", "budget_windows", "usage_daily", "unpublished", "admin_audit")
    return [await connection.fetch(f"SELECT * FROM {table} AS t ORDER BY t") for table in tables]  # noqa: S608


async def test_a_request_is_credited(
    session: Session, billed: LedgerRow, owner_of_tables: asyncpg.Connection
) -> None:
    """Entry 2 has actor and reason; the windows of the request, its day's sum and the outbox follow."""
    assert Credit(billed.request_id, 2, 5, 20) == await credit(session, billed, 25)
    entry = await owner_of_tables.fetchrow("SELECT * FROM ledger WHERE entry = 2")
    assert entry is not None
    assert ("corrected", "corrected", "tester", WHY, -5, -20) == tuple(
        entry[name]
        for name in ("outcome", "usage_source", "actor", "reason", "input_tokens", "output_tokens")
    )
    assert (billed.day, billed.month, billed.key_id) == (entry["day"], entry["month"], entry["key_id"])
    assert 6 == len(await owner_of_tables.fetch(WINDOWS))
    assert {5} == await used(owner_of_tables)
    assert [2] == [
        row["version"] for row in await owner_of_tables.fetch("SELECT DISTINCT version FROM budget_windows")
    ]
    (waiting,) = await owner_of_tables.fetch("SELECT * FROM unpublished")
    assert (billed.request_id, 2) == (waiting["request_id"], waiting["entry"])
    (row,) = await usage(session, tenant="acme", by=[By.MODEL])
    assert (1, 5, 0) == (row.requests, row.input_tokens, row.output_tokens)
    audited = await owner_of_tables.fetchrow("SELECT * FROM admin_audit ORDER BY id DESC LIMIT 1")
    assert audited is not None
    assert ("tester", "usage_credited", billed.key_id) == tuple(
        audited[name] for name in ("actor", "action", "key_id")
    )
    assert {"request": str(billed.request_id), "entry": 2, "tokens": 25, "reason": WHY} == json.loads(
        audited["new"]
    )


async def test_a_tenant_is_credited(
    session: Session, billed: LedgerRow, owner_of_tables: asyncpg.Connection
) -> None:
    """Under an id of its own, off today's windows: the tenant's alone, or with a prefix the key's, too."""
    made = await credit_tenant(session, "acme", prefix=None, tokens=4, reason=WHY, at=NOW)
    assert made.request != billed.request_id
    assert 2 == made.entry
    assert {(billed.tenant_id, 26), (billed.key_id, 30)} == {
        (row["scope_id"], row["used"]) for row in await owner_of_tables.fetch(WINDOWS)
    }
    keys = await usage(session, tenant="acme")
    assert [("(credits)", -4), ("first", 30)] == [(row.key, row.tokens) for row in keys]
    assert billed.lookup
    await credit_tenant(session, "acme", prefix=billed.lookup, tokens=6, reason=WHY, at=NOW)
    assert {(billed.tenant_id, 20), (billed.key_id, 24)} == {
        (row["scope_id"], row["used"]) for row in await owner_of_tables.fetch(WINDOWS)
    }
    (whole,) = await usage(session, tenant="acme", by=[By.TENANT])
    assert 20 == whole.tokens


async def test_today_is_the_tenants(
    session: Session, book: Book, owner: Identity, owner_of_tables: asyncpg.Connection
) -> None:
    """Late on the 24th in UTC it is the 25th in Auckland, and that day's window is lowered."""
    await set_tenant_limits(session, "acme", limits=lambda old: old, timezone="Pacific/Auckland")
    late = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)
    await book.settle(served(owner, late, day=date(2026, 11, 25), month=date(2026, 11, 1)))
    await credit_tenant(session, "acme", prefix=owner.lookup, tokens=30, reason=WHY, at=late)
    days = await owner_of_tables.fetch(f"{WINDOWS} WHERE period = 'day'")
    assert [(date(2026, 11, 25), 0)] * 2 == [(row["start"], row["used"]) for row in days]


async def test_credits_add_up_to_what_was_billed(
    session: Session, billed: LedgerRow, owner_of_tables: asyncpg.Connection
) -> None:
    """A request can be credited again, as entry 3, until nothing is left of it."""
    await credit(session, billed, 10)
    assert 3 == (await credit(session, billed, 20)).entry
    assert {0} == await used(owner_of_tables)
    with pytest.raises(CommandError, match="is billed 0 tokens in all, so 1 can't be credited"):
        await credit(session, billed, 1)


async def test_the_same_credit_twice_is_one(
    session: Session, billed: LedgerRow, owner_of_tables: asyncpg.Connection
) -> None:
    """Who repeats a command that may have been committed credits nothing twice; another reason is another."""
    await credit(session, billed, 5)
    with pytest.raises(CommandError, match=r"by tester at .* already: a second credit needs a reason"):
        await credit(session, billed, 5)
    await credit(session, billed, 5, "another cut answer")
    assert {20} == await used(owner_of_tables)
    await credit_tenant(session, "acme", prefix=None, tokens=5, reason=WHY, at=NOW)
    with pytest.raises(CommandError, match=r"by tester at .* already: a second credit needs a reason"):
        await credit_tenant(session, "acme", prefix=None, tokens=5, reason=WHY, at=NOW)


async def test_what_can_not_be_credited_writes_nothing(
    session: Session, book: Book, billed: LedgerRow, owner_of_tables: asyncpg.Connection
) -> None:
    """Each is refused in one sentence: unknown, still running, too much, unused, another's key."""
    running = uuid7(round(NOW.timestamp() * 1000))
    assert billed.tenant_id
    assert billed.key_id
    whose = Owner(billed.tenant_id, billed.key_id)
    await book.store.add_open([OpenRow(running, NODE, BOOT, whose, 1, 1, NOW.date(), NOW.date(), NOW)])
    await create_tenant(session, "idle")
    idle = await create_key(session, tenant="idle", name="idle")
    # A window that was lowered by hand holds less than the request was billed.
    await owner_of_tables.execute("UPDATE budget_windows SET used = 7 WHERE period = 'month'")

    def by_request(request: UUID, tokens: int) -> Awaitable[Credit]:
        return credit_request(session, request, tokens=tokens, reason=WHY, at=NOW)

    def by_tenant(name: str, prefix: str | None, tokens: int = 1) -> Awaitable[Credit]:
        return credit_tenant(session, name, prefix=prefix, tokens=tokens, reason=WHY, at=NOW)

    before = await everything(owner_of_tables)
    for refused, sentence in (
        (by_request(UUID(int=7), 1), "The ledger has no request"),
        (by_request(running, 1), "still runs"),
        (by_request(billed.request_id, 31), "is billed 30 tokens in all, so 31 can't"),
        (by_request(billed.request_id, 8), "Only 7 tokens are left in the windows of 2026-11-25"),
        (by_tenant("acme", None, 8), "Only 7 tokens are left in the windows of 2026-11-25"),
        (by_tenant("idle", None), "Only 0 tokens are left"),
        (by_tenant("idle", idle.prefix), "Only 0 tokens are left"),
        (by_tenant("acme", idle.prefix), "is idle's: give --tenant idle"),
        (by_tenant("nobody", None), "There is no tenant 'nobody'"),
    ):
        with pytest.raises(CommandError, match=sentence) as error:
            await refused
        assert "\n" not in str(error.value)
    assert before == await everything(owner_of_tables)


@pytest.mark.parametrize(
    ("tokens", "actor", "reason"), [(-5, "a", "b"), (0, "a", "b"), (5, "", "b"), (5, "a", ""), (5, None, "b")]
)
async def test_the_database_refuses_what_is_no_credit(
    session: Session, billed: LedgerRow, tokens: int, actor: str | None, reason: str
) -> None:
    """Whoever calls the function without the command can neither charge nor leave out the reason."""
    query = "SELECT credit_request($1, $2, $3, $4, $5)"
    async with session.store.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(query, billed.request_id, tokens, NOW, actor, reason)


async def test_metering_can_not_forge_a_correction(
    billed: LedgerRow, owner_of_tables: asyncpg.Connection
) -> None:
    """Entries 2 and up come from the function alone, and a settlement is never negative."""
    await act_as(owner_of_tables, METERING_ROLE)
    query = (
        "INSERT INTO ledger (request_id, entry, at, node, boot, outcome, usage_source, input_tokens, "
        "output_tokens, actor, reason) VALUES ($1, $2, now(), $1, $1, 'x', $3, -1, 0, 'a', 'b')"
    )
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="added by credit_request"):
        await owner_of_tables.execute(query, billed.request_id, 2, "corrected")
    for entry, source in ((0, "none"), (1, "corrected")):
        with pytest.raises(asyncpg.CheckViolationError):
            await owner_of_tables.execute(query, uuid7(round(NOW.timestamp() * 1000)), entry, source)


async def test_credits_at_once_never_go_below_0(
    session: Session, billed: LedgerRow, owner_of_tables: asyncpg.Connection
) -> None:
    """Of many corrections at the same moment as many succeed as were paid for, none deadlocks."""
    wishes = [credit(session, billed, 7, f"reason {number}") for number in range(6)]
    wishes += [
        credit_tenant(session, "acme", prefix=billed.lookup, tokens=7, reason=f"reason {number}", at=NOW)
        for number in range(6)
    ]
    made: list[Any] = await asyncio.gather(*wishes, return_exceptions=True)
    assert {Credit, CommandError} == {type(each) for each in made}
    assert 4 == sum(isinstance(each, Credit) for each in made)
    assert {2} == await used(owner_of_tables)
    assert 2 == await owner_of_tables.fetchval("SELECT sum(input_tokens + output_tokens) FROM ledger")


@pytest.mark.usefixtures("outside", "owner")
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "Give --request ID, or --tenant NAME"),
        (["--tenant", "acme", "--request", str(UUID(int=1))], 2, "Give --request ID, or --tenant NAME"),
        (["--request", str(UUID(int=1)), "--prefix", "nz_AAAAAAAA"], 2, "Give --request ID, or --tenant"),
        (["--request", "x"], 2, "'x' is no request id"),
        (["--tenant", "acme", "--tokens", "0"], 2, "--tokens 0 can't be credited"),
        (["--tenant", "acme", "--tokens", "-5"], 2, "--tokens -5 can't be credited"),
        (["--tenant", "acme", "--tokens", str(2**70)], 2, "can't be credited"),
        (["--tenant", "acme", "--tokens", "many"], 2, "--tokens"),
        (["--tenant", "acme", "--reason", "  "], 2, "--reason must say why"),
        (["--tenant", "acme", "--reason", "a\nb"], 2, "--reason must say why"),
        (["--tenant", "acme", "--reason", "\udcff"], 2, "--reason must say why"),
        (["--tenant", "acme", "--reason", "x" * 513], 2, "--reason must say why"),
        (["--tenant", "acme", "--reason", f"for nz_{'a' * 51}"], 2, "--reason holds an API key"),
        (["--tenant", "acme", "--reason", f"for nz_{'a' * 9}"], 2, "--reason holds an API key"),
        (["--tenant", "acme", "--reason", f"for NZ_{'A' * 46}"], 2, "--reason holds an API key"),
        (["--tenant", "acme"], 1, "Only 0 tokens are left"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be credited says what to give instead."""
    given = {"--tokens": "1", "--reason": WHY}
    rest = [word for name, value in given.items() if name not in arguments for word in (name, value)]
    assert code == run(["usage", "credit", *arguments, *rest])
    said = capsys.readouterr().err
    assert sentence in said
    assert 1 == said.count("\n")


@pytest.mark.usefixtures("outside")
def test_the_command_says_what_it_did(billed: LedgerRow, capsys: pytest.CaptureFixture[str]) -> None:
    """For programs as JSON, for people in a sentence."""
    command = ["usage", "credit", "--request", str(billed.request_id), "--tokens"]
    assert 0 == run([*command, "20", "--reason", WHY, "--json"])
    assert {
        "request": str(billed.request_id),
        "entry": 2,
        "input_tokens": 0,
        "output_tokens": 20,
    } == json.loads(capsys.readouterr().out)
    assert 0 == run([*command, "5", "--reason", WHY])
    assert "Credited 5 tokens to request" in capsys.readouterr().out

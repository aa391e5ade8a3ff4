"""The sums of the ledger, whichever way they are cut."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from attrs import asdict

from authz.__main__ import run
from authz.accounts.keys import create_key
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.admin.period import Period
from authz.admin.usage import By, DayUsage, ModelUsage, TenantUsage, Usage, usage
from authz.errors import CommandError
from authz.models import canonical
from authz.store import Store
from authz.types import Identity
from metering.rows import LedgerRow
from tests.authz.billing import Book, anything, denied, served
from tests.authz.conftest import known

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
async def owners(session: Session, store: Store, owner: Identity) -> list[Identity]:
    """Two keys of acme and one of zeta."""
    second = await create_key(session, tenant="acme", name="second")
    await create_tenant(session, "zeta")
    third = await create_key(session, tenant="zeta", name="third")
    return [owner, await known(store, second.prefix), await known(store, third.prefix)]


def summed(rows: list[LedgerRow], by: By) -> dict[object, tuple[int, int, int]]:
    """The ledger's rows, without the empty ones."""
    sums: dict[object, tuple[int, int, int]] = {}
    for row in rows:
        names = {
            By.TENANT: row.tenant_id,
            By.KEY: row.key_id,
            By.MODEL: canonical(row.model) if row.model else "",
            By.DAY: row.partition,
        }
        one = (int(row.entry == 0 and row.backend is not None), row.input_tokens, row.output_tokens)
        if any(one):
            known_sum = sums.get(names[by], (0, 0, 0))
            sums[names[by]] = (known_sum[0] + one[0], known_sum[1] + one[1], known_sum[2] + one[2])
    return sums


@pytest.mark.parametrize(
    "since", [None, datetime(2026, 11, 22, tzinfo=UTC), NOON], ids=["ever", "day", "noon"]
)
@pytest.mark.parametrize("by", By)
async def test_usage_is_the_sum_of_the_ledger(
    session: Session, book: Book, owners: list[Identity], by: By, since: datetime | None
) -> None:
    """Whole days from the rollup and a part of one from the ledger give what the ledger's rows add up to."""
    await book.add(*(anything(owners[number // 3 % 3], number) for number in range(400)))
    asked = [row for row in book.rows if since is None or row.at >= since]
    rows = await usage(session, tenant=None, key=None, period=Period(since), by=by)
    names = {owner.lookup: owner.key for owner in owners} | {
        owner.tenant_name: owner.tenant for owner in owners
    }
    found = {}
    for row in rows:
        name = asdict(row)[by]
        found[names.get(name, name)] = (row.requests, row.input_tokens, row.output_tokens)
    assert summed(asked, by) == found


@pytest.mark.parametrize("by", By)
async def test_usage_of_one(session: Session, book: Book, owners: list[Identity], by: By) -> None:
    """With --tenant or --key only theirs is shown."""
    first, second, third = owners
    await book.add(served(first, NOON), served(second, NOON), served(third, NOON))
    ours = await usage(session, tenant="acme", key=None, by=by)
    mine = await usage(session, tenant="acme", key=first.lookup, by=by)
    assert (60, 30) == (sum(row.tokens for row in ours), sum(row.tokens for row in mine))


async def test_usage_has_what_each_cut_is_called(
    session: Session, book: Book, owners: list[Identity]
) -> None:
    """Tenants and keys are listed by name though unused; models under one name; days as dates."""
    first, second, _ = owners
    await book.add(served(first, NOON), served(first, NOON, model="library/LLAMA3.2"), denied(second, NOON))
    assert [
        Usage("acme", first.lookup, "first", 2, 20, 40),
        Usage("acme", second.lookup, "second", 0, 0, 0),
        Usage("zeta", owners[2].lookup, "third", 0, 0, 0),
    ] == await usage(session, tenant=None, key=None)
    for by, expected in {
        By.TENANT: [TenantUsage("acme", 2, 20, 40), TenantUsage("zeta", 0, 0, 0)],
        By.MODEL: [ModelUsage("llama3.2:latest", 2, 20, 40)],
        By.DAY: [DayUsage(date(2026, 11, 24), 2, 20, 40)],
    }.items():
        assert expected == await usage(session, tenant=None, key=None, by=by)


async def test_a_part_of_a_dropped_day_can_not_be_known(
    session: Session, book: Book, owner: Identity
) -> None:
    """When retention has dropped a day only all of it is still known, and the error says so."""
    await book.add(served(owner, NOON))
    await book.drop(NOON.date())
    with pytest.raises(CommandError, match="2026-11-24 is not kept any more: give a whole day"):
        await usage(session, tenant=None, key=None, period=Period(NOON))
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    (row,) = await usage(session, tenant=None, key=None, period=Period(midnight))
    assert 30 == row.tokens


async def test_usage_does_not_read_the_ledger_of_whole_days(
    session: Session, book: Book, owner: Identity
) -> None:
    """However long the ledger is: without it, what was used is still known."""
    await book.add(*(served(owner, NOON.replace(day=day)) for day in range(1, 25)))
    for day in range(1, 25):
        await book.drop(date(2026, 11, day))
    (row,) = await usage(session, tenant=None, key=None)
    assert (24, 720) == (row.requests, row.tokens)


@pytest.fixture
async def used(book: Book, owner: Identity) -> Identity:
    """An owner with 30 tokens on one day and 60 on the next."""
    await book.add(served(owner, NOON), *(served(owner, NOON.replace(day=25)) for _ in range(2)))
    return owner


@pytest.mark.usefixtures("outside")
def test_json_keeps_its_fields(used: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read tenant, key, name, requests, input_tokens and output_tokens of each key."""
    assert 0 == run(["usage", "--json"])
    expected = {
        "tenant": "acme",
        "key": used.lookup,
        "name": "first",
        "requests": 3,
        "input_tokens": 30,
        "output_tokens": 60,
    }
    assert [expected] == json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("outside", "used")
def test_bars_are_drawn_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest bar is the greatest use, half of it half as long; a pipe gets none."""
    assert 0 == run(["usage", "--by", "day"])
    assert "█" not in capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert 0 == run(["usage", "--by", "day"])
    bars = [line.count("█") for line in capsys.readouterr().out.splitlines()]
    assert [0, 16, 32] == bars


@pytest.mark.usefixtures("outside", "used")
@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--by", "year"], 2, "--by"),
        (["--since", "yesterday"], 2, "'yesterday' is no time: write 2026-12-31, 2026-12-31T12:00 or 7d."),
        (["--tenant", "nobody"], 1, "There is no tenant 'nobody'"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong question is refused with what to write instead."""
    assert code == run(["usage", *arguments])
    said = capsys.readouterr().err
    assert sentence in said
    assert 1 == said.count("\n")

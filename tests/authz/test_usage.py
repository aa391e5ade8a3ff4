"""The sums of the ledger, whichever way they are cut."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from attrs import evolve

from authz.__main__ import run
from authz.accounts.credits import credit_request
from authz.accounts.keys import create_key
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant, erase_tenant
from authz.admin.period import Period
from authz.admin.usage import SHOWN, By, Usage, usage
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


Names = tuple[object, ...]
Figures = tuple[int, int, int]


def summed(rows: list[LedgerRow], by: list[By]) -> dict[Names, Figures]:
    """The ledger's rows, without the empty ones."""
    sums: dict[Names, Figures] = {}
    for row in rows:
        day = row.day or row.partition
        named: dict[By, object] = {
            By.TENANT: row.tenant_id,
            By.KEY: row.key_id,
            By.MODEL: canonical(row.model) if row.model else "",
            By.END_USER: (row.tenant_id, row.end_user),
            By.DAY: day,
            By.MONTH: day.replace(day=1),
        }
        names = tuple(named[each] for each in by)
        one = (int(row.entry == 0 and row.backend is not None), row.input_tokens, row.output_tokens)
        if any(one):
            known_sum = sums.get(names, (0, 0, 0))
            sums[names] = (known_sum[0] + one[0], known_sum[1] + one[1], known_sum[2] + one[2])
    return sums


@pytest.mark.parametrize(
    "since", [None, datetime(2026, 11, 22, tzinfo=UTC), NOON], ids=["ever", "day", "noon"]
)
@pytest.mark.parametrize(
    "by",
    [*([each] for each in By), [By.DAY, By.TENANT], [By.KEY, By.MODEL, By.DAY], [*By]],
    ids=lambda by: ",".join(by) if isinstance(by, list) else None,
)
async def test_usage_is_the_sum_of_the_ledger(
    session: Session, book: Book, owners: list[Identity], by: list[By], since: datetime | None
) -> None:
    """Whole days from the rollup and a part of one from the ledger give what the ledger's rows add up to."""
    await book.add(*(anything(owners[number // 3 % 3], number) for number in range(400)))
    asked = [row for row in book.rows if since is None or row.at >= since]
    rows = await usage(session, period=Period(since), by=by)
    ids: dict[object, object] = {owner.lookup: owner.key for owner in owners}
    ids |= {owner.tenant_name: owner.tenant for owner in owners}
    found = {}
    for row in rows:
        values = (getattr(row, SHOWN[each][-1]) for each in by)
        names = tuple(
            (ids[row.tenant], value) if each is By.END_USER else ids.get(value, value)
            for each, value in zip(by, values, strict=True)
        )
        found[names] = (row.requests, row.input_tokens, row.output_tokens)
    assert summed(asked, by) == found
    assert len(found) == len(rows)


async def test_rows_are_in_the_order_of_what_they_are_summed_by(
    session: Session, book: Book, owners: list[Identity]
) -> None:
    """--by model,day puts models first and the days of each one after the other."""
    await book.add(*(anything(owners[0], number) for number in range(200)))
    rows = await usage(session, by=[By.MODEL, By.DAY])
    assert sorted((row.model or "", row.day) for row in rows) == [(row.model, row.day) for row in rows]
    assert {None} == {row.key for row in rows}


@pytest.mark.parametrize("by", By)
async def test_usage_of_one(session: Session, book: Book, owners: list[Identity], by: By) -> None:
    """With --tenant or --key only theirs is shown."""
    first, second, third = owners
    await book.add(served(first, NOON), served(second, NOON), served(third, NOON))
    ours = await usage(session, tenant="acme", by=[by])
    mine = await usage(session, tenant="acme", prefix=first.lookup, by=[by])
    assert (60, 30) == (sum(row.tokens for row in ours), sum(row.tokens for row in mine))


async def test_usage_has_what_each_cut_is_called(
    session: Session, book: Book, owners: list[Identity]
) -> None:
    """Tenants and keys are listed by name though unused; models under one name; days as dates."""
    first, second, _ = owners
    await book.add(served(first, NOON), served(first, NOON, model="library/LLAMA3.2"), denied(second, NOON))
    two: dict[str, Any] = {"requests": 2, "input_tokens": 20, "output_tokens": 40}
    assert [
        Usage(tenant="acme", key="first", prefix=first.lookup, **two),
        Usage(tenant="acme", key="second", prefix=second.lookup),
        Usage(tenant="zeta", key="third", prefix=owners[2].lookup),
    ] == await usage(session)
    for by, expected in {
        By.TENANT: [Usage(tenant="acme", **two), Usage(tenant="zeta")],
        By.MODEL: [Usage(model="llama3.2:latest", **two)],
        By.DAY: [Usage(day=date(2026, 11, 24), **two)],
        By.MONTH: [Usage(month=date(2026, 11, 1), **two)],
    }.items():
        assert expected == await usage(session, by=[by])


async def test_a_part_of_a_dropped_day_can_not_be_known(
    session: Session, book: Book, owner: Identity
) -> None:
    """When retention has dropped a day only all of it is still known, and the error says so."""
    await book.add(served(owner, NOON))
    await book.drop(NOON.date())
    with pytest.raises(CommandError, match="2026-11-24 is not kept any more: give a whole day"):
        await usage(session, period=Period(NOON))
    midnight = datetime(2026, 11, 24, tzinfo=UTC)
    (row,) = await usage(session, period=Period(midnight))
    assert 30 == row.tokens


async def test_usage_does_not_read_the_ledger_of_whole_days(
    session: Session, book: Book, owner: Identity
) -> None:
    """However long the ledger is: without it, what was used is still known."""
    await book.add(*(served(owner, NOON.replace(day=day)) for day in range(1, 25)))
    for day in range(1, 25):
        await book.drop(date(2026, 11, day))
    (row,) = await usage(session)
    assert (24, 720) == (row.requests, row.tokens)


async def test_end_users_are_those_of_a_tenant(session: Session, book: Book, owners: list[Identity]) -> None:
    """Each is named with its tenant, what has no name is one row, and a correction is that of its request."""
    first, second, third = owners
    mine = served(first, NOON, end_user="alice", day=NOON.date(), month=NOON.date().replace(day=1))
    await book.settle(mine)
    await book.add(
        served(second, NOON, end_user="alice", model="qwen3:8b"),
        served(first, NOON),
        served(third, NOON, end_user="alice"),
        mine._replace(entry=1, output_tokens=5, input_tokens=0, end_user=None),
    )
    await credit_request(session, mine.request_id, tokens=7, reason="too many", at=NOON)
    one: dict[str, Any] = {"requests": 1, "input_tokens": 10}
    nameless = Usage(tenant="acme", output_tokens=20, **one)
    zeta = Usage(tenant="zeta", end_user="alice", output_tokens=20, **one)
    expected = [
        nameless,
        Usage(tenant="acme", end_user="alice", requests=2, input_tokens=20, output_tokens=38),
        zeta,
    ]
    for since in (None, NOON.replace(hour=0), NOON.date()):
        assert expected == await usage(session, by=[By.END_USER], period=Period(since))
    assert [
        evolve(nameless, model="llama3.2:latest"),
        Usage(tenant="acme", end_user="alice", model="llama3.2:latest", output_tokens=18, **one),
        evolve(zeta, model="llama3.2:latest"),
        Usage(tenant="acme", end_user="alice", model="qwen3:8b", output_tokens=20, **one),
    ] == await usage(session, by=[By.MODEL, By.END_USER])


async def test_who_is_erased_leaves_sums(session: Session, book: Book, owners: list[Identity]) -> None:
    """With the names of a tenant, or the ledger of a day, what they used goes on without them."""
    first, _, third = owners
    await book.add(
        *(served(each, NOON, end_user=name) for each in (first, third) for name in ("alice", "bob"))
    )
    erased = await erase_tenant(session, "acme")
    assert [(erased.name, None, 60), ("zeta", "alice", 30), ("zeta", "bob", 30)] == [
        (row.tenant, row.end_user, row.tokens) for row in await usage(session, by=[By.END_USER])
    ]
    await book.drop(NOON.date())
    assert [(erased.name, None, 60), ("zeta", None, 60)] == [
        (row.tenant, row.end_user, row.tokens) for row in await usage(session, by=[By.END_USER])
    ]


@pytest.fixture
async def used(book: Book, owner: Identity) -> Identity:
    """An owner with 30 tokens on one day and 60 on the next."""
    await book.add(served(owner, NOON), *(served(owner, NOON.replace(day=25)) for _ in range(2)))
    return owner


@pytest.mark.usefixtures("outside")
def test_json_keeps_its_fields(used: Identity, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read tenant, key, prefix, requests, input_tokens and output_tokens of each key."""
    assert 0 == run(["usage", "--json"])
    expected = {
        "tenant": "acme",
        "key": "first",
        "prefix": used.lookup,
        "requests": 3,
        "input_tokens": 30,
        "output_tokens": 60,
    }
    assert [expected] == json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("outside", "used")
def test_json_of_end_users(capsys: pytest.CaptureFixture[str]) -> None:
    """A program reads whose end user it is, and null for what has none."""
    assert 0 == run(["usage", "--by", "end-user", "--json"])
    expected = {"tenant": "acme", "end_user": None, "requests": 3, "input_tokens": 30, "output_tokens": 60}
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
        (["--by", "key,year"], 2, "--by key,year can't be summed by: write one or several of tenant, key, "),
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

"""What a request may ask of the machines: read from the command line, shown, refused before it is written."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from authz.__main__ import run
from authz.accounts.keys import CreatedKey, create_key
from authz.accounts.limits import set_key_limits, set_tenant_limits, show
from authz.accounts.session import Session
from authz.admin.policy_options import PolicyOptions
from authz.errors import CommandError
from authz.store import Store
from authz.types import SAFE_POLICY, Limits, Policy
from tests.authz.conftest import known

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "num_ctx",
        "num_ctx=4096",
        "num_ctx>=4096",
        "num_ctx<4096",
        "num_ctx<=",
        "num_ctx<=-1",
        "num_ctx<=1e9",
        "num_ctx<=1.5",
        "num_ctx<=NaN",
        "num_ctx<=2147483648",
        "num_ctx<=٣",
        "num_ctx<=none",
        "num_thread<=4",
        "deadline_s<=4",
        "keep_alive_s<=600",
        "keep_alive<=-1",
        "keep_alive<=1800",
        "keep_alive<=4m",
        "keep_alive<=1s",
        "keep_alive<=31d",
        "keep_alive<=99999h",
        "num_gpu<=10000",
        "stop<=-1",
        "images<=1099511627777",
        "num_ctx<=1;num_gpu<=1",
    ],
)
def test_what_is_no_allowance(text: str) -> None:
    """Out of range, contradictory or unknown: one sentence with what to write instead."""
    with pytest.raises(CommandError, match=r"^--allow [^\n]* is (no allowance|out of range): [^\n]*\.$"):
        PolicyOptions(allow=(text,)).applied(Policy())


@pytest.mark.parametrize("text", ["", "5", "0s", "-5m", "25h", "1w", "always", "99999d"])
def test_what_is_no_deadline(text: str) -> None:
    """A deadline is a span from a second to a day."""
    with pytest.raises(CommandError, match=r"^--deadline .* is out of range: .*\.$"):
        PolicyOptions(deadline=text).applied(Policy())


def test_a_name_that_is_given_twice() -> None:
    """Two values of one name contradict each other, whatever they are."""
    with pytest.raises(CommandError, match="names num_ctx more than once"):
        PolicyOptions(allow=("num_ctx<=4096", "num_ctx=none")).applied(Policy())


def test_allowances_are_given_and_taken_back() -> None:
    """What is not named stays; `none` takes back."""
    given = PolicyOptions(
        allow=("num_ctx<=32768", "keep_alive <= 30m", "num_gpu<=99", "images<=0", "logprobs<=5"),
        deadline="5m",
    ).applied(Policy(stop=4))
    assert given == Policy(
        num_ctx=32_768, keep_alive_s=1800, num_gpu=99, stop=4, images=0, logprobs=5, deadline_s=300
    )
    taken = PolicyOptions(allow=("num_ctx=none", "keep_alive=none", "images=none"))
    assert taken.applied(given) == Policy(num_gpu=99, stop=4, logprobs=5, deadline_s=300)
    assert Policy(stop=4) == PolicyOptions(deadline="none").applied(Policy(stop=4, deadline_s=9))


def test_turns_are_given_and_taken_back() -> None:
    """Priority and weight are set apart, and taken back with none and 0."""
    given = PolicyOptions(priority="batch", weight=5).applied(Policy(stop=4))
    assert given == Policy(stop=4, batch=1, weight=5)
    assert Policy(stop=4, batch=0, weight=5) == PolicyOptions(priority="interactive").applied(given)
    assert Policy(stop=4) == PolicyOptions(priority="none", weight=0).applied(given)


def test_details_are_shown_and_withheld() -> None:
    """A key may see what its tenant may not, and the other way round."""
    given = PolicyOptions(details="shown").applied(Policy(stop=4))
    assert given == Policy(stop=4, details=1)
    assert Policy(stop=4, details=0) == PolicyOptions(details="withheld").applied(given)
    assert Policy(stop=4) == PolicyOptions(details="none").applied(given)


@pytest.mark.parametrize("weight", [-1, 101])
def test_what_is_no_weight(weight: int) -> None:
    """A weight is a whole number up to 100."""
    with pytest.raises(CommandError, match=rf"^--weight {weight} is out of range: .*\.$"):
        PolicyOptions(weight=weight).applied(Policy())


async def test_a_key_stands_over_its_tenant(session: Session, store: Store, key: CreatedKey) -> None:
    """A key's policy is over its tenant's, and that over the default, with the return of the command."""
    assert SAFE_POLICY == (await known(store, key.prefix)).policy
    await set_tenant_limits(
        session, "acme", limits=lambda old: old, policy=lambda _: Policy(num_ctx=4096, stop=8, deadline_s=60)
    )
    await set_key_limits(session, key.prefix, policy=lambda _: Policy(num_ctx=8192))
    identity = await known(store, key.prefix)
    assert identity.policy == Policy(num_ctx=8192, stop=8, deadline_s=60).over(SAFE_POLICY)
    assert (2, 2) == (identity.tenant_version, identity.key_version)
    await set_key_limits(session, key.prefix, policy=PolicyOptions(allow=("num_ctx=none",)).applied)
    assert 4096 == (await known(store, key.prefix)).policy.num_ctx


async def test_no_change_is_no_version(session: Session, store: Store, key: CreatedKey) -> None:
    """A policy that is set again changes no version."""
    for _ in range(2):
        await set_key_limits(session, key.prefix, policy=lambda _: Policy(images=3))
        await set_tenant_limits(session, "acme", limits=lambda _: Limits(), policy=lambda _: Policy(images=4))
    identity = await known(store, key.prefix)
    assert (2, 2) == (identity.tenant_version, identity.key_version)


async def test_policies_are_shown(session: Session, key: CreatedKey) -> None:
    """show-limits lists what a tenant and its keys may ask for, each under its name."""
    await set_tenant_limits(session, "acme", limits=lambda old: old, policy=lambda _: Policy(num_gpu=0))
    created = await create_key(
        session, tenant="acme", name="long", policy=Policy(keep_alive_s=1800, deadline_s=300)
    )
    rows = await show(session, tenant="acme", prefix=None, now=NOW)
    assert [(row.scope, row.limit, row.value) for row in rows] == [
        ("acme", "num_gpu", 0),
        (created.prefix, "keep_alive_s", 1800),
        (created.prefix, "deadline_s", 300),
    ]


@pytest.mark.usefixtures("outside")
def test_policies_are_shown_as_they_are_written(
    key: CreatedKey, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """show-limits and audit print what users write, such as end-users kept; programs read what is stored."""
    monkeypatch.setenv("COLUMNS", "200")
    given = "--end-users kept --details withheld --priority batch --deadline 5m --allow keep_alive<=30m"
    assert 0 == run(["set-limits", "--tenant", "acme", *given.split()])
    assert 0 == run(["set-limits", "--prefix", key.prefix, "--in-path", "allowed", "--log-prompts", "7d"])
    capsys.readouterr()
    assert 0 == run(["show-limits", "--tenant", "acme"])
    shown = {(line.split()[1], line.split()[2]) for line in capsys.readouterr().out.splitlines()[1:]}
    assert shown == {
        ("end-users", "kept"),
        ("details", "withheld"),
        ("priority", "batch"),
        ("deadline", "5m"),
        ("keep_alive", "30m"),
        ("in-path", "allowed"),
        ("log-prompts", "7d"),
    }
    assert 0 == run(["audit"])
    printed = capsys.readouterr().out
    assert [] == [f"{name}={value}" for name, value in shown if f"{name}={value}" not in printed]
    before = [f"{name}=none" for name, _ in shown]
    assert [] == [text for text in before if text not in printed], "there was none before"
    assert 0 == run(["show-limits", "--prefix", key.prefix, "--json"])
    stored = {row["limit"]: row["value"] for row in json.loads(capsys.readouterr().out)}
    names = ("in_path", "end_users", "deadline_s", "log_prompts_s")
    assert [1, 1, 300, 604_800] == [stored[name] for name in names]

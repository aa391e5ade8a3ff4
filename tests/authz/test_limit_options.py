"""The limits that an operator may set: read from the command line, refused before anything is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from authz.accounts import scope as scope_
from authz.accounts.scope import Scope
from authz.admin import limit_options
from authz.admin.limit_options import LimitOptions, ScopeOptions
from authz.errors import CommandError
from authz.types import Limits

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["0", "-1", "1.5", "1e3", "", " ", "ten", "1_000", "+5", str(2**40 + 1), "9" * 17, "٣"]
)
@pytest.mark.parametrize("option", ["rpm", "tpm", "concurrency", "tokens_per_day", "tokens_total"])
def test_a_limit_is_a_whole_number_above_zero(option: str, text: str) -> None:
    """Negative, zero, huge or fractional limits are refused with one sentence."""
    with pytest.raises(
        CommandError, match=r"is no limit: give a whole number from 1 to 1099511627776, or `none` for none\.$"
    ):
        LimitOptions(**{option: text}).applied(Limits())


@pytest.mark.parametrize(
    ("options", "old", "match"),
    [
        (
            LimitOptions(tokens_per_day="11", tokens_per_month="10"),
            Limits(),
            "per-day 11 lies above --tokens-per-month 10,",
        ),
        (
            LimitOptions(tokens_per_month="11", tokens_total="10"),
            Limits(),
            "per-month 11 lies above --tokens-total 10,",
        ),
        (LimitOptions(tokens_total="4"), Limits(tokens_per_day=5), "per-day 5 lies above --tokens-total 4,"),
        (
            LimitOptions(tokens_per_day="2000"),
            Limits(tokens_per_month=1000),
            "per-day 2000 lies above --tokens-per-month 1000,",
        ),
    ],
)
def test_a_budget_that_can_never_be_reached(options: LimitOptions, old: Limits, match: str) -> None:
    """Budgets that contradict each other, one given or both, are refused with one sentence."""
    with pytest.raises(CommandError, match=match):
        options.applied(old)


def test_contradiction_of_before_blocks_no_other_change() -> None:
    """What was set before this was checked stays, as long as no budget is given."""
    old = Limits(tokens_per_day=5, tokens_total=4)
    assert 7 == LimitOptions(rpm="7").applied(old).requests_per_minute
    assert None is LimitOptions(tokens_per_day="none").applied(old).tokens_per_day


def test_what_is_not_given_stays() -> None:
    """An option that is not given changes nothing; `none` removes a limit."""
    old = Limits(requests_per_minute=10, concurrency=5)
    new = LimitOptions(rpm="none", tokens_total="1000").applied(old)
    assert Limits(concurrency=5, tokens_total=1000) == new


@pytest.mark.parametrize("text", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "UTC\n"])
def test_unknown_time_zone(text: str) -> None:
    """A time zone that IANA does not know is refused."""
    with pytest.raises(CommandError, match="is no IANA time zone"):
        scope_.timezone(text)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (ScopeOptions(models="llama 3"), "is no model name or pattern"),
        (ScopeOptions(models="a,,b"), "is no model name or pattern"),
        (ScopeOptions(cidr="10.0.0.1/8"), "is no network"),
        (ScopeOptions(cidr="example.com"), "is no network"),
        (ScopeOptions(cidr="fe80::1%eth0"), "names an interface"),
        (ScopeOptions(cidr="10.0.0.0/8,fe80::1%1/128"), "names an interface"),
        (ScopeOptions(cidr="fe80::%eth0/64"), "names an interface"),
        (ScopeOptions(cidr="fe80::1%"), "is no network"),
        (ScopeOptions(cidr="10.0.0.0/8%eth0"), "is no network"),
        (ScopeOptions(cidr="::ffff:10.0.0.1/104"), "is no network"),
        (ScopeOptions(cidr="::ffff:0:0/95"), "is no network"),
        (ScopeOptions(expires="2026-11-25"), "lies in the past"),
        (ScopeOptions(expires="0d"), "lies in the past"),
        (ScopeOptions(expires="soon"), "is no time"),
        (ScopeOptions(max_output="-1"), "is no limit"),
        (ScopeOptions(log_prompts="0d"), "out of range: give how long prompts are kept"),
        (ScopeOptions(log_prompts="-7d"), "out of range: give how long prompts are kept"),
        (ScopeOptions(log_prompts="59m"), "out of range: give how long prompts are kept"),
        (ScopeOptions(log_prompts="367d"), "out of range: give how long prompts are kept"),
        (ScopeOptions(log_prompts="99999d"), "out of range: give how long prompts are kept"),
        (ScopeOptions(log_prompts="7"), "out of range: give how long prompts are kept"),
        (ScopeOptions(log_prompts="for a week"), "out of range: give how long prompts are kept"),
        (ScopeOptions(log_prompts=""), "out of range: give how long prompts are kept"),
    ],
)
def test_restrictions_are_checked(options: ScopeOptions, match: str) -> None:
    """A pattern, network, expiry or cap that can't be meant is refused."""
    with pytest.raises(CommandError, match=match):
        options.applied(Scope(), NOW)


@pytest.mark.parametrize(
    ("text", "networks"),
    [
        ("::ffff:10.0.0.0/104", ("10.0.0.0/8",)),
        ("::FFFF:192.0.2.1", ("192.0.2.1/32",)),
        ("::ffff:0:0/96", ("0.0.0.0/0",)),
        ("fe80::/10", ("fe80::/10",)),
        ("169.254.0.0/16", ("169.254.0.0/16",)),
        ("::/0", ("::/0",)),
        ("10.0.0.0/255.0.0.0", ("10.0.0.0/8",)),
        ("FE80:0:0:0:0:0:0:1", ("fe80::1/128",)),
    ],
)
def test_networks_are_normalised(text: str, networks: tuple[str, ...]) -> None:
    """A network is kept in its one form; an IPv4 address that is mapped to IPv6 is compared as IPv4."""
    assert networks == ScopeOptions(cidr=text).applied(Scope(), NOW).cidrs


def test_restrictions() -> None:
    """Restrictions are read as they are meant, and removed by `none`."""
    options = ScopeOptions(
        models="llama3.2, qwen3:*",
        cidr="10.0.0.0/8,2001:db8::/32",
        expires="30d",
        max_output="50",
        log_prompts="7d",
    )
    scope = options.applied(Scope(), NOW)
    assert (
        Scope(("llama3.2", "qwen3:*"), ("10.0.0.0/8", "2001:db8::/32"), NOW + timedelta(days=30), 50, 604_800)
        == scope
    )
    assert Scope() == ScopeOptions("none", "none", "none", "none", "none").applied(scope, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(hours=24)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00+02:00", datetime(2026, 11, 1, 10, tzinfo=UTC)),
    ],
)
def test_moments(text: str, expected: datetime) -> None:
    """A moment is a date, a time or a span back from now; without a zone it is UTC."""
    assert expected == limit_options.moment(text, NOW, is_past=True)


def test_key_above_its_tenant() -> None:
    """A key's limit above its tenant's is allowed, and named."""
    key, tenant = (
        Limits(requests_per_minute=10, tokens_total=5),
        Limits(requests_per_minute=5, tokens_total=10),
    )
    assert ["requests_per_minute"] == scope_.above(key, tenant)

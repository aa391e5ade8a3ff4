"""Read limits and restrictions from the command line, and check them before anything is written.

An option that is not given changes nothing; `none` removes a limit.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Final

from attrs import evolve, frozen
from cyclopts import Parameter

from authz import models as models_
from authz.accounts.keys import check_prefix
from authz.errors import UsageError
from authz.types import GREATEST_COUNT

if TYPE_CHECKING:
    from authz.accounts.scope import Scope
    from authz.types import Limits

NONE: Final = "none"
LEAST_KEPT: Final = timedelta(hours=1)
LONGEST_KEPT: Final = timedelta(days=366)
SPAN: Final = re.compile(r"(\d{1,5})([mhd])", re.ASCII)
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


@Parameter(name="*")
@frozen
class LimitOptions:
    """Limits of a tenant or a key; `none` removes one.

    Args:
        rpm: Requests per minute.
        tpm: Tokens per minute, input and output.
        concurrency: Requests at a time.
        tokens_per_day: Budget of tokens per day, in the tenant's time zone.
        tokens_per_month: Budget of tokens per calendar month.
        tokens_total: Budget of tokens in all.
    """

    rpm: str | None = None
    tpm: str | None = None
    concurrency: str | None = None
    tokens_per_day: str | None = None
    tokens_per_month: str | None = None
    tokens_total: str | None = None

    def applied(self, limits: Limits) -> Limits:
        """Return the limits, changed as the command line says. Raises UsageError on a bad value."""
        given = {
            "requests_per_minute": ("rpm", self.rpm),
            "tokens_per_minute": ("tpm", self.tpm),
            "concurrency": ("concurrency", self.concurrency),
            "tokens_per_day": ("tokens-per-day", self.tokens_per_day),
            "tokens_per_month": ("tokens-per-month", self.tokens_per_month),
            "tokens_total": ("tokens-total", self.tokens_total),
        }
        changes = {name: count(text, option) for name, (option, text) in given.items() if text is not None}
        new = evolve(limits, **changes)
        if any(name.startswith("tokens_") and name != "tokens_per_minute" for name in changes):
            _check_budgets(new)
        return new


@Parameter(name="*")
@frozen
class ScopeOptions:
    """Restrictions of a key; `none` removes one.

    Args:
        models: The models it may use, comma-separated; `*` matches.
        cidr: The networks it may be used from, comma-separated.
        expires: When it ends: a date, a time, or a span from now like 30d.
        max_output: Most output tokens of one answer.
        log_prompts: How long prompts and answers are kept, sealed, like 7d; without it none is.
    """

    models: str | None = None
    cidr: str | None = None
    expires: str | None = None
    max_output: str | None = None
    log_prompts: str | None = None

    def applied(self, scope: Scope, now: datetime) -> Scope:
        """Return the restrictions, changed as the command line says. Raises UsageError on a bad value."""
        changes: dict[str, Any] = {}
        if self.models is not None:
            changes["models"] = None if self.models == NONE else _models(self.models)
        if self.cidr is not None:
            changes["cidrs"] = None if self.cidr == NONE else _cidrs(self.cidr)
        if self.expires is not None:
            changes["expires_at"] = None if self.expires == NONE else _expiry(self.expires, now)
        if self.max_output is not None:
            changes["max_output"] = count(self.max_output, "max-output")
        if self.log_prompts is not None:
            changes["log_prompts_s"] = None if self.log_prompts == NONE else _kept(self.log_prompts)
        return evolve(scope, **changes)


def count(text: str, option: str) -> int | None:
    """Parse a limit: a whole number above 0, or `none`. Raises UsageError."""
    if text == NONE:
        return None
    if not re.fullmatch(r"[0-9]{1,16}", text, re.ASCII) or not 0 < int(text) <= GREATEST_COUNT:
        raise UsageError(
            f"--{option} {text} is no limit: give a whole number from 1 to {GREATEST_COUNT}, "
            "or `none` for none."
        )
    return int(text)


def _check_budgets(limits: Limits) -> None:
    """Refuse a budget above that of a longer period: it could never be reached. Raises UsageError."""
    budgets = {
        "tokens-per-day": limits.tokens_per_day,
        "tokens-per-month": limits.tokens_per_month,
        "tokens-total": limits.tokens_total,
    }
    known = [(option, value) for option, value in budgets.items() if value is not None]
    for (shorter, value), (longer, most) in combinations(known, 2):
        if value > most:
            sentence = (
                f"--{shorter} {value} lies above --{longer} {most}, so it could never be reached: "
                "lower it, or remove one with `none`."
            )
            raise UsageError(sentence)


def moment(text: str, now: datetime, *, is_past: bool) -> datetime:
    """Parse a date, a time, or a span from now (90m, 24h, 7d); without a zone it is UTC."""
    span = SPAN.fullmatch(text)
    if span:
        length = timedelta(**{_UNITS[span[2]]: int(span[1])})
        return now - length if is_past else now + length
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time: write 2026-12-31, 2026-12-31T12:00 or 7d.") from error
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def prefix(_: object, text: str | None) -> None:
    """Check a --prefix before the stores are opened. Raises UsageError."""
    if text is not None:
        check_prefix(text)


KeyPrefix = Annotated[
    str | None, Parameter(help="Only this key, by its first 11 characters.", validator=prefix)
]
"""The filter of lists that a key's use stands in."""


def _models(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if not models_.is_pattern(name):
            raise UsageError(f"{name!r} is no model name or pattern: write --models llama3.2,qwen3:*")
    return names


def _cidrs(text: str) -> tuple[str, ...]:
    networks = []
    for part in text.split(","):
        try:
            network = ip_network(part.strip())
        except ValueError as error:
            sentence = f"{part.strip()!r} is no network: write --cidr 10.0.0.0/8,2001:db8::/32"
            raise UsageError(sentence) from error
        if "%" in part:  # Python accepts a zone; Postgres does not, nor has a client's address one
            raise UsageError(f"{part.strip()!r} names an interface: leave out what begins at the %.")
        networks.append(str(_unmapped(network)))
    return tuple(networks)


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Return the IPv4 network of addresses mapped to IPv6; a client's address is compared as IPv4, too."""
    if isinstance(network, IPv4Network) or not network.subnet_of(_MAPPED):
        return network
    address = network.network_address.ipv4_mapped
    return IPv4Network(f"{address}/{network.prefixlen - _MAPPED.prefixlen}")


def _kept(text: str) -> int:
    span = SPAN.fullmatch(text)
    length = timedelta(**{_UNITS[span[2]]: int(span[1])}) if span else timedelta()
    if not LEAST_KEPT <= length <= LONGEST_KEPT:
        raise UsageError(
            f"--log-prompts {text} is out of range: give how long prompts are kept, "
            "from 1h to 366d, like 7d, or `none` to keep none."
        )
    return int(length.total_seconds())


def _expiry(text: str, now: datetime) -> datetime:
    end = moment(text, now, is_past=False)
    if end <= now:
        raise UsageError(f"--expires {text} lies in the past: give a time to come, or revoke the key.")
    return end

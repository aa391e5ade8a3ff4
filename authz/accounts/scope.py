"""Convert limits and restrictions between columns of Postgres and values."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 (attrs reads it)
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from attrs import asdict, fields, frozen

from authz.errors import UsageError
from authz.types import Limits, Policy

if TYPE_CHECKING:
    import asyncpg


@frozen
class Scope:
    """The restrictions of a key besides its limits; None means no restriction."""

    models: tuple[str, ...] | None = None
    cidrs: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    max_output: int | None = None
    log_prompts_s: int | None = None
    """How long prompts and answers are kept, sealed; None keeps none."""


def timezone(text: str) -> str:
    """Return an IANA time zone's name. Raises UsageError if there is no such zone."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        sentence = f"{text!r} is no IANA time zone: write one like Europe/Berlin or UTC."
        raise UsageError(sentence) from error
    return text


def limits_of(row: asyncpg.Record) -> Limits:
    """Read the limits in a row of tenants or keys."""
    return Limits(**{field.name: row[field.name] for field in fields(Limits)})


def scope_of(row: asyncpg.Record) -> Scope:
    """Read the restrictions in a row of keys."""
    models, cidrs = (None if row[name] is None else tuple(row[name]) for name in ("models", "cidrs"))
    return Scope(models, cidrs, row["expires_at"], row["max_output"], row["log_prompts_s"])


def policy_of(row: asyncpg.Record) -> Policy:
    """Read the policy in a row of tenants or keys."""
    return msgspec.json.decode(row["policy"], type=Policy)


def tenant_values(row: asyncpg.Record) -> dict[str, object]:
    """Return what the audit has of a row of tenants: all that an operator sets."""
    own = {name: row[name] for name in ("name", "state", "timezone")}
    return own | asdict(limits_of(row)) | asdict(policy_of(row))


def key_values(row: asyncpg.Record) -> dict[str, object]:
    """Return what the audit has of a row of keys, likewise."""
    own = {name: row[name] for name in ("name", "state")}
    return own | asdict(limits_of(row)) | asdict(scope_of(row)) | asdict(policy_of(row))


def policy_column(policy: Policy) -> str:
    """Return a policy as the queries take it."""
    return msgspec.json.encode(policy.given).decode()


def columns(limits: Limits) -> dict[str, int | None]:
    """Return limits under the parameter names of the queries."""
    return {
        "rpm": limits.requests_per_minute,
        "tpm": limits.tokens_per_minute,
        "concurrency": limits.concurrency,
        "day": limits.tokens_per_day,
        "month": limits.tokens_per_month,
        "total": limits.tokens_total,
    }


def above(key: Limits, tenant: Limits) -> list[str]:
    """Name the limits of a key that can't be reached, because the tenant's are lower and hold as well."""
    pairs = {field.name: (getattr(key, field.name), getattr(tenant, field.name)) for field in fields(Limits)}
    return [
        name for name, (own, whole) in pairs.items() if own is not None and whole is not None and own > whole
    ]

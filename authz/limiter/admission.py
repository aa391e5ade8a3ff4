"""The question to admit.lua, and its answers: times in µs."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from attrs import frozen

from authz.limiter import keyspace, wire
from authz.types import Limits, Windows

if TYPE_CHECKING:
    from datetime import datetime

    from authz.types import OpenRequest, Total

MINUTE_US: Final = 60_000_000

_pack = msgspec.msgpack.Encoder().encode


class Admission(msgspec.Struct, frozen=True):
    """A request's demand on the limits, in tokens; its prompt can't exceed `bound_in`."""

    request_id: UUID
    tenant: UUID
    key: UUID
    tenant_version: int
    key_version: int
    tenant_limits: Limits
    key_limits: Limits
    windows: Windows
    valid_from_us: int
    valid_until_us: int
    bound_in: int
    wanted: int
    share: int
    """Of what a budget has left, an answer without a cap takes one in so many; 0 for one with a cap."""
    least_share: int
    """But always so many tokens."""
    estimated_input: int
    estimated_output: int
    deadline_s: int

    def question(self, *, id_age_us: int, lifetime_us: int) -> bytes:
        """Pack what admit.lua takes after the clock and the run, in the order in which it names it.

        Redis parses one argument much sooner than thirty.
        """
        return _pack(
            (
                str(self.request_id),
                (self.request_id.int >> 80) * 1000,
                id_age_us,
                self.tenant_version,
                keyspace.scope(self.key),
                self.key_version,
                self.windows.day,
                self.windows.month,
                self.valid_from_us,
                self.valid_until_us,
                self.bound_in,
                self.wanted,
                self.share,
                self.least_share,
                self.estimated_input + self.estimated_output,
                lifetime_us,
                *_limits(self.tenant_limits, self.key_limits),
            )
        )


class Rate(msgspec.Struct, frozen=True):
    """A rate limit per minute: what is left, and when it will be full again."""

    limit: int
    left: int
    full_in_us: int

    @classmethod
    def at(cls, limit: int, full_in_us: int) -> Rate:
        """Return the rate of a bucket that will be full again in a while; a debt leaves nothing."""
        return cls(limit, max(0, (MINUTE_US - full_in_us) * limit // MINUTE_US), full_in_us)


class Admitted(msgspec.Struct, frozen=True):
    """The request may run: the most that it can be charged, which windows pay, what its rates have left."""

    input: int
    output: int
    windows: Windows
    requests: Rate | None
    tokens: Rate | None


@frozen
class LimitReached:
    """A limit is reached: which, of the `tenant` or the `key` (scope), its use, when to try again.

    The limit is `requests`, `tokens`, `concurrency`, a budget that has less left than the request needs
    (`day`, `month`, `total`), or one whose rest is held by running requests (`held_day`, `held_month`,
    `held_total`). `needed` are the tokens that the request needs of a budget, at the least or as it is.
    """

    limit: str
    scope: str
    used: int
    value: int
    wait_us: int
    held: int
    needed: int

    @property
    def is_passing(self) -> bool:
        """Return whether the end of running requests is enough to make room."""
        return self.limit == "concurrency" or self.limit.startswith("held_")


@frozen
class Lost:
    """The tenant's hash is of another run of Redis, or missing: it must be rebuilt first."""

    mark: str
    marked_at: datetime


@frozen
class NotDecided:
    """The script could not judge the request: `lost`, `stale`, `closed`, `late` or `calendar`."""

    reason: str
    now: datetime


Decision = Admitted | LimitReached | NotDecided


def decision(answer: list[Any], of: Admission) -> Decision:
    """Read what admit.lua has decided: words are bytes, numbers are ints."""
    kind = answer[0]
    if kind == b"admitted":
        _, reserved_input, reserved_output, day, month, *full_in_us = answer
        tenant, key = of.tenant_limits, of.key_limits
        return Admitted(
            reserved_input,
            reserved_output,
            Windows(day.decode(), month.decode()),
            _tighter(tenant.requests_per_minute, full_in_us[0], key.requests_per_minute, full_in_us[2]),
            _tighter(tenant.tokens_per_minute, full_in_us[1], key.tokens_per_minute, full_in_us[3]),
        )
    if kind == b"refused":
        _, limit, scope, used, value, wait_us, held, needed = answer
        owner = "tenant" if scope.decode() == keyspace.TENANT_SCOPE else "key"
        return LimitReached(limit.decode(), owner, used, value, wait_us, held, needed)
    return NotDecided(kind.decode(), wire.moment(answer[1]))


@lru_cache(maxsize=4096)
def _limits(tenant: Limits, key: Limits) -> tuple[int | tuple[int | None, ...] | None, ...]:
    """Return the limits of both scopes, in the order of admit.lua."""
    return (
        tenant.requests_per_minute,
        tenant.tokens_per_minute,
        tenant.concurrency,
        key.requests_per_minute,
        key.tokens_per_minute,
        key.concurrency,
        (
            tenant.tokens_total,
            key.tokens_total,
            tenant.tokens_per_month,
            key.tokens_per_month,
            tenant.tokens_per_day,
            key.tokens_per_day,
        ),
    )


def _tighter(tenant: int | None, tenant_us: int, key: int | None, key_us: int) -> Rate | None:
    """Return the tenant's rate or the key's, whichever has less left."""
    if tenant is None:
        return None if key is None else Rate.at(key, key_us)
    of_tenant = Rate.at(tenant, tenant_us)
    if key is None:
        return of_tenant
    of_key = Rate.at(key, key_us)
    return of_key if of_key.left < of_tenant.left else of_tenant


@frozen
class Reading:
    """A snapshot of Postgres, read to end a tenant's loss; `read_at` is Redis's clock before it."""

    tenant: UUID
    mark: str
    read_at: datetime
    tenant_version: int


@frozen(kw_only=True)
class Batch:
    """A part of what a reading found of a tenant; the sum of all parts may be of any size."""

    key_versions: tuple[tuple[UUID, int], ...] = ()
    totals: tuple[Total, ...] = ()
    open_requests: tuple[OpenRequest, ...] = ()
    closed: tuple[UUID, ...] = ()

"""Values as the scripts take and give them: times in µs, a limit that is none as -1, scopes by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from authz.limiter import keyspace
from authz.limiter.admission import Admitted, Rate, Refused, Standing, Unfit, Use
from authz.types import Windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from authz.limiter.admission import Admission
    from authz.limiter.connection import Argument
    from authz.types import Limits, Total

SECOND_US: Final = 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def us(moment: datetime) -> int:
    """A moment as the scripts count it."""
    return (moment - EPOCH) // MICROSECOND


def moment(since_epoch_us: bytes | int) -> datetime:
    """The moment a script speaks of."""
    return EPOCH + int(since_epoch_us) * MICROSECOND


@lru_cache(maxsize=4096)
def limits(of: Limits) -> tuple[int, ...]:
    """The six limits of a scope, in the order of admit.lua."""
    six = (
        of.requests_per_minute,
        of.tokens_per_minute,
        of.concurrency,
        of.tokens_per_day,
        of.tokens_per_month,
        of.tokens_total,
    )
    return tuple(-1 if limit is None else limit for limit in six)


def totals(tenant: UUID, of: Iterable[Total]) -> list[Argument]:
    """What was used: scope and window, tokens, version of each."""
    arguments: list[Argument] = []
    listed = list(of)
    for name, total in zip(names(tenant, listed), listed, strict=True):
        arguments += (name, total.used, total.version)
    return arguments


def names(tenant: UUID, of: Iterable[Total]) -> list[str]:
    """What the windows are called in fields of the tenant's hash."""
    scopes = ((None if total.scope == tenant else total.scope, total) for total in of)
    return [
        f"{keyspace.scope(scope)}:{keyspace.window(total.period, total.start)}" for scope, total in scopes
    ]


def decision(said: list[Any], ask: Admission) -> Admitted | Refused | Unfit:
    """What admit.lua has decided about an admission: words are bytes, numbers are ints."""
    kind = said[0]
    if kind == b"admitted":
        _, reserved_input, reserved_output, day, month, *full_in_us = said
        of_tenant, of_key = ask.tenant_limits, ask.key_limits
        return Admitted(
            reserved_input,
            reserved_output,
            Windows(day.decode(), month.decode()),
            _tighter(of_tenant.requests_per_minute, full_in_us[0], of_key.requests_per_minute, full_in_us[2]),
            _tighter(of_tenant.tokens_per_minute, full_in_us[1], of_key.tokens_per_minute, full_in_us[3]),
        )
    if kind == b"refused":
        _, limit, scope, used, value, wait_us, held = said
        whose = "tenant" if scope.decode() == keyspace.TENANT_SCOPE else "key"
        return Refused(limit.decode(), whose, used, value, wait_us, held)
    return Unfit(kind.decode(), moment(said[1]))


def standing(scope: UUID, found: Sequence[bytes | None], running: int, now_us: int) -> Standing:
    """How a scope stands, from the fields that `keyspace.standing` names."""
    read_us, requests_us, tokens_us, *uses = (0 if value is None else float(value) for value in found)
    passed_us = max(0, now_us - read_us)
    total, month, day = (Use(int(used), int(held)) for used, held in zip(uses[::2], uses[1::2], strict=True))
    return Standing(
        scope=scope,
        requests_full_in_us=int(max(0, requests_us - passed_us)),
        tokens_full_in_us=int(max(0, tokens_us - passed_us)),
        running=running,
        day=day,
        month=month,
        total=total,
    )


def _tighter(tenant: int | None, tenant_us: int, key: int | None, key_us: int) -> Rate | None:
    """Of the tenant's and the key's rate the one with less left."""
    if tenant is None:
        return None if key is None else Rate.at(key, key_us)
    of_tenant = Rate.at(tenant, tenant_us)
    if key is None:
        return of_tenant
    of_key = Rate.at(key, key_us)
    return of_key if of_key.left < of_tenant.left else of_tenant

"""Values as the scripts take and give them: times in µs, a limit that is none as -1, scopes by name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from authz import keyspace
from authz.admission import Admitted, Rate, Refused, Standing, Unfit, Use
from authz.types import Windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID

    from authz.admission import Admission
    from authz.pipeline import Argument
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


def decision(said: list[bytes], ask: Admission) -> Admitted | Refused | Unfit:
    """What admit.lua has decided about an admission."""
    kind = said[0].decode()
    if kind == "admitted":
        of_tenant, of_key = ask.tenant_limits, ask.key_limits
        windows = Windows(said[3].decode(), said[4].decode())
        requests = _tighter((of_tenant.requests_per_minute, said[5]), (of_key.requests_per_minute, said[7]))
        tokens = _tighter((of_tenant.tokens_per_minute, said[6]), (of_key.tokens_per_minute, said[8]))
        return Admitted(int(said[1]), int(said[2]), windows, requests, tokens)
    if kind == "refused":
        limit, scope = said[1].decode(), said[2].decode()
        used, value, wait_us, held = map(int, said[3:])
        whose = "tenant" if scope == keyspace.TENANT_SCOPE else "key"
        return Refused(limit, whose, used, value, wait_us, held)
    return Unfit(kind, moment(said[1]))


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


def _tighter(*buckets: tuple[int | None, bytes]) -> Rate | None:
    """Of the tenant's and the key's rate the one with less left."""
    rates = [Rate.at(limit, int(full_in_us)) for limit, full_in_us in buckets if limit is not None]
    return min(rates, key=lambda rate: rate.left, default=None)

"""Values as the scripts take and give them: times in µs, windows by name, reservations packed.

A reservation is written by admit.lua and by a rebuild; settle.lua and the sweep read it. Its numbers
are strings, because Lua's JSON keeps only 14 digits of one.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
from attrs import frozen

from authz.limiter import keyspace
from authz.types import OpenRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from authz.limiter.connection import Argument
    from authz.types import Total

SECOND_US: Final = 1_000_000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


def us(moment: datetime) -> int:
    """Return a moment in microseconds since 1970, as the scripts count time."""
    return (moment - EPOCH) // MICROSECOND


def moment(since_epoch_us: bytes | int) -> datetime:
    """Return the moment of a script's microseconds."""
    return EPOCH + int(since_epoch_us) * MICROSECOND


def totals(tenant: UUID, of: Iterable[Total]) -> list[Argument]:
    """Return window, used tokens and version of each total, as settle.lua and rebuild.lua take them."""
    arguments: list[Argument] = []
    listed = list(of)
    for name, total in zip(names(tenant, listed), listed, strict=True):
        arguments += (name, total.used, total.version)
    return arguments


def names(tenant: UUID, of: Iterable[Total]) -> list[str]:
    """Name the windows as the fields of the tenant's hash do."""
    scopes = ((None if total.scope == tenant else total.scope, total) for total in of)
    return [
        f"{keyspace.scope(scope)}:{keyspace.window(total.period, total.start)}" for scope, total in scopes
    ]


@frozen
class Use:
    """The tokens of a budget's window that were used, and those that running requests hold."""

    used: int
    held: int


@frozen
class Standing:
    """The use of a tenant or a key (scope), whatever its limits are; buckets are full again in a while."""

    scope: UUID
    requests_full_in_us: int
    tokens_full_in_us: int
    running: int
    day: Use
    month: Use
    total: Use


def standing(
    scope: UUID, found: Sequence[bytes | None], held: Sequence[bytes | None], *, running: int, now_us: int
) -> Standing:
    """Read the use of a scope from the fields that `keyspace.standing` and `keyspace.holding` name."""
    read_us, requests_us, tokens_us, *used = (0 if value is None else float(value) for value in found)
    passed_us = max(0, now_us - read_us)
    total, month, day = (
        Use(int(spent), int(reserved or 0)) for spent, reserved in zip(used, held, strict=True)
    )
    return Standing(
        scope=scope,
        requests_full_in_us=int(max(0, requests_us - passed_us)),
        tokens_full_in_us=int(max(0, tokens_us - passed_us)),
        running=running,
        day=day,
        month=month,
        total=total,
    )


class Charge(msgspec.Struct, frozen=True):
    """The charge to a bucket of tokens, and the worth of one token at that time (µs)."""

    charged_us: str
    token_us: str


class Charges(msgspec.Struct, frozen=True):
    """The charges of both scopes."""

    tenant: Charge
    key: Charge


class Reservation(msgspec.Struct, frozen=True):
    """The tokens held for a request, the most that it can be charged, and in which windows."""

    key: str
    input: str
    output: str
    day: str
    month: str
    admitted_us: str
    charges: Charges


NOTHING = Charge("0", "0")

_decoder = msgspec.json.Decoder(Reservation)


def pack(request: OpenRequest) -> bytes:
    """Encode the reservation of a request that a rebuild found in Postgres; it has charged no rate."""
    return msgspec.json.encode(
        Reservation(
            key=str(request.key),
            input=str(request.held_input),
            output=str(request.held_output),
            day=request.day.isoformat(),
            month=request.month.isoformat()[:7],
            admitted_us="0",
            charges=Charges(NOTHING, NOTHING),
        )
    )


def unpack(request_id: UUID, packed: bytes, deadline: datetime) -> OpenRequest:
    """Decode a reservation to the request that it is for."""
    held = _decoder.decode(packed)
    return OpenRequest(
        request_id=request_id,
        key=UUID(held.key),
        held_input=int(held.input),
        held_output=int(held.output),
        day=date.fromisoformat(held.day),
        month=date.fromisoformat(f"{held.month}-01"),
        deadline=deadline,
    )


def owner(packed: bytes) -> str:
    """Return the key of a reservation."""
    return _decoder.decode(packed).key

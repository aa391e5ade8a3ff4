"""Values as the scripts take and give them: times in µs, windows by name, reservations packed.

A reservation is written by admit.lua and by a rebuild; settle.lua and the sweep read it.
"""

from __future__ import annotations

import struct
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
    from authz.types import Closed, Total

SECOND_US: Final = 1_000_000

_pack = msgspec.msgpack.Encoder().encode
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
BUCKET: Final = ">3d"
"""A scope's bucket as the scripts pack it: its clock, and when it is full of requests and of tokens again."""


def us(moment: datetime) -> int:
    """Return a moment in microseconds since 1970, as the scripts count time."""
    return (moment - EPOCH) // MICROSECOND


def moment(since_epoch_us: bytes | int) -> datetime:
    """Return the moment of a script's microseconds."""
    return EPOCH + int(since_epoch_us) * MICROSECOND


def settlement(
    tenant: UUID,
    requests: Sequence[Closed],
    counts: Sequence[int],
    totals: Sequence[Total],
    *,
    tombstone_us: int,
) -> bytes:
    """Pack what settle.lua takes after the clock; of each key there are so many requests together."""
    return _pack(
        (
            tombstone_us,
            [str(request.request_id) for request in requests],
            [request.tokens for request in requests],
            counts,
            names(tenant, totals),
            [total.used for total in totals],
            [total.version for total in totals],
        )
    )


def totals(tenant: UUID, of: Iterable[Total]) -> list[Argument]:
    """Return window, used tokens and version of each total, as rebuild.lua takes them."""
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
    bucket, *used = found
    read_us, requests_us, tokens_us = struct.unpack(BUCKET, bucket) if bucket else (0, 0, 0)
    passed_us = max(0, now_us - read_us)
    total, month, day = (
        Use(int(spent or 0), int(reserved or 0)) for spent, reserved in zip(used, held, strict=True)
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


class Reservation(msgspec.Struct, frozen=True, array_like=True):
    """The tokens held for a request, the most that it can be charged, and in which windows.

    And the charge to each bucket of tokens, with the worth of one token at that time (µs).
    """

    key: str
    input: int
    output: int
    day: str
    month: str
    admitted_us: int
    tenant_charged_us: float
    tenant_token_us: float
    key_charged_us: float
    key_token_us: float


class Owned(msgspec.Struct, frozen=True):
    """The key of a reservation that is JSON, as those of the first layout are."""

    key: str


_decoder = msgspec.msgpack.Decoder(Reservation)
_decoder_of_first = msgspec.json.Decoder(Owned)


def pack(request: OpenRequest) -> bytes:
    """Encode the reservation of a request that a rebuild found in Postgres; it has charged no rate."""
    return _pack(
        Reservation(
            key=str(request.key),
            input=request.held_input,
            output=request.held_output,
            day=request.day.isoformat(),
            month=request.month.isoformat()[:7],
            admitted_us=0,
            tenant_charged_us=0,
            tenant_token_us=0,
            key_charged_us=0,
            key_token_us=0,
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
    """Return the key of a reservation, of an earlier run also in the first layout."""
    return (_decoder_of_first if packed.startswith(b"{") else _decoder).decode(packed).key

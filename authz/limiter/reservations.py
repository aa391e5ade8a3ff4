"""A reservation as it lies in Redis: admit.lua writes it, a rebuild too, settle.lua and the sweep read it.

Numbers are texts, because Lua's JSON keeps only 14 digits of one.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from authz.types import OpenRequest

if TYPE_CHECKING:
    from datetime import datetime


class Charge(msgspec.Struct, frozen=True):
    """What a bucket of tokens was charged, and what one token was worth when it was (µs)."""

    charged_us: str
    token_us: str


class Charges(msgspec.Struct, frozen=True):
    """The charges of both scopes."""

    tenant: Charge
    key: Charge


class Reservation(msgspec.Struct, frozen=True):
    """The tokens held for a request, and in which windows."""

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
    """The reservation of a request that a rebuild found in Postgres; it has charged no rate."""
    return msgspec.json.encode(
        Reservation(
            key=str(request.key),
            input=str(request.reserved_input),
            output=str(request.reserved_output),
            day=request.day.isoformat(),
            month=request.month.isoformat()[:7],
            admitted_us="0",
            charges=Charges(NOTHING, NOTHING),
        )
    )


def unpack(request_id: UUID, packed: bytes, deadline: datetime) -> OpenRequest:
    """The request a reservation is for."""
    held = _decoder.decode(packed)
    return OpenRequest(
        request_id=request_id,
        key=UUID(held.key),
        reserved_input=int(held.input),
        reserved_output=int(held.output),
        day=date.fromisoformat(held.day),
        month=date.fromisoformat(f"{held.month}-01"),
        deadline=deadline,
    )

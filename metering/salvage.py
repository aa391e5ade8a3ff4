"""Journal lines with a field that can't be read: what can be read of them is still settled.

A line whose request, tenant and key are known is never given up, or one odd number would make its request
free. Numbers are clamped to what settlement takes; every other field that can't be read is not said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from authz.types import GREATEST_COUNT
from metering.days import milliseconds_of, moment_of
from metering.lines import LAST_ID_MS, Open, Record, Tokens, Windows

if TYPE_CHECKING:
    from collections.abc import Iterable

Event = TypeVar("Event", Open, Record)

UNKNOWN: Final = UUID(int=0)
"""Stands for a node or a boot that can't be read."""

HOLD_S: Final = 1800
"""How long an open request without a readable deadline may run: the default of GATEWAY_DEADLINE_S."""

_FIRST_ID_MS: Final = 1_577_836_800_000  # 2020
_UUID_VERSION: Final = 7

_NEEDED: Final = ("id", "tenant", "key")


def salvaged(kind: type[Event], gateway: msgspec.Raw) -> Event | None:
    """Read what can be read of an open line or a record; None without a request, tenant and key."""
    try:
        found = msgspec.json.decode(gateway, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    values = _readable(fields(kind), found)
    if not all(values.get(name) for name in _NEEDED):
        return None
    instead: dict[str, Any] = {"v": 1, "node": UNKNOWN, "boot": UNKNOWN, "seq": 0, "outcome": ""}
    if kind is Open:
        minted = moment_of(values["id"])
        instead |= {
            "reserved": Tokens(0, 0),
            "windows": Windows(minted.date(), f"{minted:%Y-%m}"),
            "deadline": minted.timestamp() + HOLD_S,
        }
    if not is_sound(values.get("boot", UNKNOWN)):  # of no boot of this node, so that it counts in no sequence
        values |= {"node": UNKNOWN, "boot": UNKNOWN}
    known = {each.name for each in fields(kind)}
    return kind(**{name: value for name, value in (instead | values).items() if name in known})


def is_sound(value: UUID) -> bool:
    """Return whether an id is a UUIDv7 of this century: its time names a partition, their order counts."""
    return value.int >> 76 & 15 == _UUID_VERSION and _FIRST_ID_MS <= milliseconds_of(value) < LAST_ID_MS


def _readable(of: Iterable[FieldInfo], found: dict[str, msgspec.Raw]) -> dict[str, Any]:
    """Return the fields that can be read, numbers clamped."""
    values = {}
    for field in of:
        if field.name not in found:
            continue
        try:
            values[field.name] = msgspec.json.decode(found[field.name], type=field.type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = _clamped(field, found[field.name])
            if value is not None:
                values[field.name] = value
    return values


def _clamped(field: FieldInfo, raw: msgspec.Raw) -> int | Struct | None:
    """Return the nearest value that the field takes; None if it is no number, nor tokens.

    Tokens that can't be read are unknown, and no reason to charge less.
    """
    if field.name in {"reserved", "ceiling"}:
        try:
            parts = msgspec.json.decode(raw, type=dict[str, float])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Tokens(GREATEST_COUNT, GREATEST_COUNT)
        return Tokens(*(_nearest(parts.get(name, 0)) for name in ("input", "output")))
    try:
        number = msgspec.json.decode(raw, type=float)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for bound in (_nearest(number), 2**31 - 1, 999):  # of counts, of images, of a status
        if bound > _nearest(number):
            continue
        try:
            return msgspec.convert(bound, type=field.type)  # type: ignore[no-any-return]
        except msgspec.ValidationError:
            continue
    return None


def _nearest(number: float) -> int:
    return int(min(max(number, 0), GREATEST_COUNT))

"""JSON exactly as Go writes it: compact, `<`, `>`, `&` and the line separators escaped."""

import struct
from typing import Final

import msgspec

_DECLARED: Final = msgspec.json.Encoder(order="deterministic")
_SORTED: Final = msgspec.json.Encoder(order="sorted")
_ESCAPES: Final = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def encode(shape: object) -> bytes:
    """Write a Go struct: fields in the order of their declaration, maps by key."""
    return _escaped(_DECLARED.encode(shape))


def encode_map(shape: object) -> bytes:
    """Write a Go map: every name sorted, at every depth but inside raw JSON."""
    return _escaped(_SORTED.encode(shape))


def number(value: float) -> float:
    """Drop the fraction of a whole number: Go writes 1, never 1.0."""
    return int(value) if value.is_integer() else value


def single(value: float) -> float:
    """Round to Go's float32."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def single_number(value: float) -> float:
    """Name a float32 by the fewest digits that give it back, as Go does."""
    digits = (float(f"{value:.{places}g}") for places in range(6, 9))
    return number(next((short for short in digits if single(short) == value), value))


def _escaped(text: bytes) -> bytes:
    # None of these bytes is JSON syntax: they occur inside strings only.
    for plain, escape in _ESCAPES:
        text = text.replace(plain, escape)
    return text

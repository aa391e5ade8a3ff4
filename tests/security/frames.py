"""HTTP/2 frame by frame, over an open connection without TLS: what no client library would send."""

from __future__ import annotations

import socket
from typing import IO, Final

from tests.security.wire import PATIENCE_S

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RESET: Final = 0
"""The verdict on a request that gets no answer: its stream or the connection is ended."""

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS = 1, 4
_NEVER_INDEXED: Final = b"\x10"
_INDEXED_STATUSES: Final = {0x88: 200, 0x89: 204, 0x8C: 400, 0x8D: 404, 0x8E: 500}
_HUFFMAN_STATUSES: Final = {b"h\x01": 401, b"l\x02": 502}
"""The statuses that are shorter so; RFC 7541, appendix B."""

Fields = tuple[tuple[str, str], ...]


def verdict(address: tuple[str, int], fields: Fields, body: bytes = b"") -> int:
    """Send one request with exactly these fields; its status, or RESET."""
    with socket.create_connection(address, PATIENCE_S) as opened, opened.makefile("rb") as frames:
        flags = _END_HEADERS | (0 if body else _END_STREAM)
        request = PREFACE + _frame(_SETTINGS) + _frame(_HEADERS, flags, _block(fields))
        opened.sendall(request + (_frame(_DATA, _END_STREAM, body) if body else b""))
        return _answer(frames)


def _answer(frames: IO[bytes]) -> int:
    while head := frames.read(9):
        payload = frames.read(int.from_bytes(head[:3], "big"))
        if head[3] in {_RST_STREAM, _GOAWAY}:
            return RESET
        if head[3] == _HEADERS:
            return _status(payload)
    return RESET


def _frame(kind: int, flags: int = 0, payload: bytes = b"") -> bytes:
    stream = 0 if kind == _SETTINGS else 1
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _block(fields: Fields) -> bytes:
    return b"".join(_NEVER_INDEXED + _string(name) + _string(value) for name, value in fields)


def _string(text: str) -> bytes:
    """A text with its length: seven bits of it, then seven more as often as it takes."""
    data = text.encode("latin-1")
    if len(data) < 0x7F:
        return bytes([len(data)]) + data
    length, rest = [0x7F], len(data) - 0x7F
    while rest >= 0x80:
        length.append(rest % 0x80 | 0x80)
        rest //= 0x80
    return bytes([*length, rest]) + data


def _status(block: bytes) -> int:
    """The first field of an answer's block, which is always its status."""
    if block[0] in _INDEXED_STATUSES:
        return _INDEXED_STATUSES[block[0]]
    value = block[2 : 2 + (block[1] & 0x7F)]
    return _HUFFMAN_STATUSES[value] if block[1] & 0x80 else int(value)

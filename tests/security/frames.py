"""HTTP/2 frame by frame, with TLS or without: what no client library would send."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Final

from attrs import define, field
from hpack import Decoder, Encoder

from tests.security.wire import PATIENCE_S, Reply, connection

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RESET: Final = 0
"""The status of a request that gets no answer: its stream or the connection is ended."""

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_CANCEL: Final = (8).to_bytes(4, "big")
_LONGEST: Final = 16_384
"""The payload of a frame, which every server takes."""

Fields = tuple[tuple[str, str], ...]


@define
class Frames:
    """One connection; its requests are sent one after another, each on the next stream."""

    _socket: socket.socket
    _answers: IO[bytes]
    _stream: int = -1
    _encoder: Encoder = field(factory=Encoder)
    _decoder: Decoder = field(factory=Decoder)
    is_over: bool = False

    def ask(
        self, fields: Fields, body: bytes = b"", *, trailers: Fields = (), is_whole: bool = True
    ) -> Reply:
        """Send a request with exactly these fields, or what there is of it, and read its answer."""
        self.begin(fields, body, trailers=trailers, is_whole=is_whole)
        return self.read()

    def begin(
        self, fields: Fields, body: bytes = b"", *, trailers: Fields = (), is_whole: bool = True
    ) -> None:
        """Send a request, or what there is of it."""
        self._stream += 2
        is_bare = is_whole and not body and not trailers
        self._send_fields(fields, _END_STREAM if is_bare else 0)
        for start in range(0, len(body), _LONGEST):
            is_last = is_whole and not trailers and start + _LONGEST >= len(body)
            self._send(_DATA, _END_STREAM if is_last else 0, body[start : start + _LONGEST])
        if trailers:
            self._send_fields(trailers, _END_STREAM)

    def reset(self, fields: Fields, body: bytes) -> None:
        """Send a whole request, and cancel it before anything of its answer is read."""
        self.begin(fields, body)
        self._send(_RST_STREAM, 0, _CANCEL)

    def go_on(self, fields: Fields, frames: int) -> None:
        """Send a request whose fields go on for so many frames, and never end."""
        self._stream += 2
        encoded = [(name.encode(), value.encode()) for name, value in fields]
        self._send(_HEADERS, 0, self._encoder.encode(encoded, huffman=False))
        more = Encoder().encode([(b"x-more", b"a" * (_LONGEST - 64))], huffman=False)
        for _ in range(frames):
            self._send(_CONTINUATION, 0, more)

    def _send_fields(self, fields: Fields, flags: int) -> None:
        encoded = ((name.encode("latin-1"), value.encode("latin-1")) for name, value in fields)
        self._send(_HEADERS, flags | _END_HEADERS, self._encoder.encode(encoded, huffman=False))

    def _send(self, kind: int, flags: int = 0, payload: bytes = b"", *, stream: int | None = None) -> None:
        number = self._stream if stream is None else stream
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big")
        with suppress(ConnectionError, ssl.SSLError):  # the answer to what came before says more
            self._socket.sendall(head + payload)

    def read(self) -> Reply:
        """Read the answer on the newest stream; a reset, an end of the connection and a GOAWAY are none."""
        headers: dict[str, str] = {}
        body = b""
        for kind, flags, stream, payload in self._frames():
            if kind == _HEADERS:
                decoded = {str(name): str(value) for name, value in self._decoder.decode(payload)}
                if stream == self._stream:
                    headers |= decoded
            elif stream == self._stream and kind == _DATA:
                body += payload
            elif stream == self._stream and kind == _RST_STREAM:
                break
            if stream == self._stream and kind in {_DATA, _HEADERS} and flags & _END_STREAM:
                break
        return Reply(int(headers.pop(":status", RESET)), headers, body)

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        with suppress(ConnectionError, ssl.SSLError):
            while head := self._answers.read(9):
                payload = self._answers.read(int.from_bytes(head[:3], "big"))
                kind, flags = head[3], head[4]
                # The server waits a second before it closes a connection that it has given up.
                if kind == _GOAWAY and (
                    any(payload[4:8]) or self._stream > int.from_bytes(payload[:4], "big")
                ):
                    break
                if kind in {_SETTINGS, _PING} and not flags & _ACK:
                    self._send(kind, _ACK, payload if kind == _PING else b"", stream=0)
                if kind == _DATA and payload:  # else the connection has room for 64 KiB of answers in all
                    self._send(_WINDOW_UPDATE, 0, len(payload).to_bytes(4, "big"), stream=0)
                yield kind, flags, int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload
        self.is_over = True


@contextmanager
def opened(url: str, *, patience_s: float = PATIENCE_S) -> Iterator[Frames]:
    """Open a connection for HTTP/2: by ALPN over TLS, else with prior knowledge (RFC 9113, 3.3)."""
    with (
        connection(url, protocol="h2", patience_s=patience_s) as made,
        made.makefile("rb") as answers,
    ):
        made.sendall(PREFACE + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0]))
        yield Frames(made, answers)

"""HTTP/1.1 byte by byte: what no client library would send, and answers read without waiting for more."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, Final
from urllib.parse import urlsplit

import msgspec
from attrs import frozen

PATIENCE_S: Final = 4.0
"""Less than Caddy's read_body_idle: an answer that waits for a body comes later than this."""


@frozen
class Reply:
    """One answer; header names are lower case, the last of two wins."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def request_id(self) -> str:
        """The id that the gateway gave to the request, empty if it never became one."""
        return self.headers.get("x-request-id", "")

    @property
    def is_last(self) -> bool:
        """Return whether the connection ends with this answer."""
        return self.headers.get("connection") == "close"

    def json(self) -> dict[str, object]:
        """The body, which must be one JSON object."""
        return msgspec.json.decode(self.body, type=dict[str, object])


@frozen
class Line:
    """One connection."""

    _socket: socket.socket
    _answers: IO[bytes]

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def read(self, method: str = "GET") -> Reply:
        """Read the next answer, an interim one too; raises ConnectionError if there is none."""
        start = self._answers.readline()
        if not start:
            raise ConnectionError("closed without an answer")
        headers = dict(self._headers())
        status = int(start.split()[1])
        has_body = method != "HEAD" and status not in {100, 204}
        return Reply(status, headers, self._body(headers) if has_body else b"")

    def ask(self, data: bytes) -> Reply:
        """Send a whole request, or what there is of it, and read its answer."""
        self.send(data)
        return self.read(data.split(b" ", 1)[0].decode("latin-1"))

    def hang_up(self) -> None:
        """End the sending side; over TLS, too, where Python's own shutdown would end both."""
        with suppress(OSError):  # the other side may have closed it
            socket.socket.shutdown(self._socket, socket.SHUT_WR)

    def is_over(self) -> bool:
        """Return whether nothing more comes."""
        return not self._answers.readline()

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._answers.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            yield name.lower(), value.strip()

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(self._chunks())
        length = headers.get("content-length")
        return self._answers.read(-1 if length is None else int(length))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._answers.readline(), 16):
            yield self._answers.read(size)
            self._answers.readline()
        self._answers.readline()


@cache
def _context(protocol: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    return context


@contextmanager
def connection(url: str, *, protocol: str, patience_s: float = PATIENCE_S) -> Iterator[socket.socket]:
    """Connect, over TLS where the URL says so; every wait on it is bounded, and no certificate is checked."""
    parts = urlsplit(url)
    with socket.create_connection(("127.0.0.1", int(parts.port or 0)), patience_s) as opened:
        if parts.scheme == "http":
            yield opened
            return
        with _context(protocol).wrap_socket(opened, server_hostname=parts.hostname) as secured:
            assert protocol == secured.selected_alpn_protocol()
            yield secured


@contextmanager
def line(url: str, *, patience_s: float = PATIENCE_S) -> Iterator[Line]:
    """Open a connection for HTTP/1.1."""
    with (
        connection(url, protocol="http/1.1", patience_s=patience_s) as opened,
        opened.makefile("rb") as answers,
    ):
        yield Line(opened, answers)


def ask(url: str, data: bytes) -> Reply:
    """Ask once, on a connection of its own."""
    with line(url) as opened:
        return opened.ask(data)

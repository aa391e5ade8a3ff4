"""A backend that answers every poll and fails every request, each model in a way of its own."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Final

import msgspec
from attrs import define, field

MODELS: Final = ("hanging", "half", "resetting", "closing", "garbled", "switching")
POLLS: Final = {
    "/api/version": {"version": "0.0.0"},
    "/api/tags": {"models": [{"name": f"{model}:latest"} for model in MODELS]},
    "/api/ps": {"models": []},
}
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER by which a close is a reset."""


class _Server(ThreadingHTTPServer):
    """Remembers the models it was asked for."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.hits: list[str] = []
        self.is_over = Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients of a broken server hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Answer as a healthy backend would."""
        body = msgspec.json.encode(POLLS[self.path])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """Fail as the model says."""
        asked = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.hits.append(asked["model"])
        match asked["model"]:
            case "hanging":
                self.server.is_over.wait()
            case "half":
                self.wfile.write(b"HTTP/1.1 200 O")
            case "resetting":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            case "garbled":
                self.wfile.write(b"what?\r\n\r\n")
            case "switching":
                self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@define
class Broken:
    """A broken backend, which may also be stopped for a while."""

    _server: _Server = field(factory=lambda: _Server(0))

    def __attrs_post_init__(self) -> None:
        """Begin to serve."""
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def hits(self) -> list[str]:
        """The models it was asked for."""
        return self._server.hits

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Refuse every connection, then listen again."""
        self.close()
        yield
        self._server = _Server(self._server.server_port)
        self.__attrs_post_init__()

    def close(self) -> None:
        """Stop listening, and let go of who hangs."""
        self._server.is_over.set()
        self._server.shutdown()
        self._server.server_close()

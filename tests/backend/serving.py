"""A test backend on a port of this machine, served by a real uvicorn in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from authz.stack.demo.exchange import Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@contextmanager
def served(
    app: App, *, host: str = "127.0.0.1", certificate: Path | None = None, key: Path | None = None
) -> Iterator[str]:
    """Serve an application, over TLS with a certificate; gives its URL."""
    listener = socket.create_server((host, 0))
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    server = uvicorn.Server(config)
    # The listener accepts before the server runs, so no caller has to wait for it.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://{host}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()

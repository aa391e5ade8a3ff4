"""A test backend on a loopback port, served by a real uvicorn in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn

from authz.stack.demo.exchange import Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]


@contextmanager
def served(app: App) -> Iterator[str]:
    """Serve an application; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http="httptools", ws="none", lifespan="off", log_level="warning", server_header=False
    )
    server = uvicorn.Server(config)
    # The listener accepts before the server runs, so no caller has to wait for it.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()

"""A receiver of alerts: a real HTTP server that keeps what it is sent, and can fail or hang."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define, field

from authz.stack.demo.exchange import Receive, Scope, Send
from tests.backend.serving import served

HANGS = 0
"""In place of a status: it does not answer until its client has left."""


@define
class Receiver:
    """Answers with each status of `answers` in turn, with the last one from then on."""

    url: str = ""
    answers: list[int] = field(factory=lambda: [200])
    bodies: list[dict[str, Any]] = field(factory=list)
    headers: list[dict[str, str]] = field(factory=list)
    paths: list[str] = field(factory=list)
    arrived: threading.Event = field(factory=threading.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a post."""
        body, is_whole = b"", False
        while not is_whole:
            message = await receive()
            body += message.get("body", b"")
            is_whole = not message.get("more_body", False)
        self.bodies.append(json.loads(body))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        self.paths.append(f"{scope['path']}?{scope['query_string'].decode()}")
        self.arrived.set()
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if status == HANGS:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        headers = [(b"location", b"/elsewhere")] if status in {301, 302, 307} else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok", "more_body": False})

    @property
    def got(self) -> list[tuple[str, str]]:
        """The names and states that were posted."""
        return [(body["name"], body["state"]) for body in self.bodies]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Serve a receiver."""
    made = Receiver()
    with served(made) as url:
        made.url = url
        yield made

"""HTTP/1.1 by uvicorn, in which /verify takes a short way: no router, no ASGI messages, one write.

What uvicorn and Litestar do with a message costs more than the decision itself, and every request is
asked about at /verify. All other paths, and everything about connections, stay theirs.
"""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from litestar import Litestar
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from authz.decision.refusals import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    Decide = Callable[[Iterable[tuple[bytes, bytes]], Callable[[], Awaitable[None]]], Awaitable[Answer]]
    """Answers a request by its headers; the function returns when the client has disconnected."""

log = structlog.get_logger()

DECIDE: Final = "decide"
"""Under this name the application's state has its Decide."""


class Protocol(HttpToolsProtocol):
    """A connection of Caddy's; uvicorn takes the class by its name."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Begin to answer a request; what isn't a plain GET of /verify is the application's to answer."""
        asked = cycle.scope["method"], cycle.scope["path"]
        if asked != ("GET", "/verify") or not isinstance(app, Litestar):
            super()._start_asgi_task(cycle, app)
            return
        task = self.loop.create_task(self._verify(cycle, app.state[DECIDE]))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _verify(self, cycle: RequestResponseCycle, decide: Decide) -> None:
        """Answer as the application would, in one write."""
        try:
            answer = await decide(cycle.scope["headers"], partial(disconnected, cycle.receive))
            text = self._text(answer, keep_alive=cycle.keep_alive)
        except Exception:  # a fault of ours: without a Grant the guard refuses the request
            log.exception("authz.verify_failed")
            text = self._text(Answer(500, {}, b""), keep_alive=cycle.keep_alive)
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        self.transport.write(text)
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _text(self, answer: Answer, *, keep_alive: bool) -> bytes:
        """Write an answer out. Raises ValueError on a header that would be more than one."""
        headers = [*self.server_state.default_headers, *lines(answer)]
        if not keep_alive:
            headers.append((b"connection", b"close"))
        written = [b"%s: %s\r\n" % header for header in headers]
        head = b"".join((STATUS_LINE[answer.status], *written, b"\r\n"))
        if not head.count(b"\r") == head.count(b"\n") == len(written) + 2:
            raise ValueError("a header holds a line break")
        return head + answer.body


def lines(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer as they are sent, with the length of a body where there may be one."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    if answer.status != HTTPStatus.NO_CONTENT:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    return headers


async def disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    """Return when Caddy has hung up, which it does when its client has."""
    while (await receive())["type"] != "http.disconnect":
        pass

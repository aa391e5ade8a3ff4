"""Clients in front of several gateways: a request goes to the next one that takes connections."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from ssl import SSLContext
from typing import Final

import httpx
from attrs import define, field

from tests.chaos.load import Load
from tests.chaos.questions import Asked

KEPT_S: Final = 4.0
"""Clients keep idle connections for less time than a Caddy that drains does (GATEWAY_DRAIN, 5 s)."""


REFUSED: Final = frozenset({httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.BAD_GATEWAY})
"""What a node answers that can't decide, 502 where its authz does not run: no loss, with a Retry-After."""


class Balancer(httpx.AsyncBaseTransport):
    """In turn to each but those that are left out, as a load balancer does that marks none as failed."""

    def __init__(self, urls: Sequence[str], trust: SSLContext) -> None:
        kept = httpx.Limits(keepalive_expiry=KEPT_S)
        transports = (httpx.AsyncHTTPTransport(verify=trust, limits=kept) for _ in urls)
        self._nodes = list(zip(map(httpx.URL, urls), transports, strict=True))
        self._turns = itertools.count()
        self.left_out: set[str] = set()
        self.served_s = dict.fromkeys(urls, 0.0)
        """When a node was last asked for what it then answered with 200, by the monotonic clock."""
        self.refused_s = 0.0
        """When an answer last was that the gateway can't decide."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it to the first that takes a connection; raises what the last one said."""
        nodes = [node for node in self._nodes if str(node[0]) not in self.left_out]
        turn = next(self._turns)
        for tried in range(1, len(nodes) + 1):
            url, transport = nodes[(turn + tried) % len(nodes)]
            request.url = request.url.copy_with(scheme=url.scheme, host=url.host, port=url.port)
            request.headers["Host"] = url.netloc.decode()
            began_s = time.monotonic()
            try:
                answer = await transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if tried == len(nodes):
                    raise
                continue
            if answer.status_code == httpx.codes.OK:
                self.served_s[str(url)] = began_s
            elif answer.status_code in REFUSED:
                self.refused_s = time.monotonic()
            return answer
        raise AssertionError("there are no nodes")

    async def aclose(self) -> None:
        """Close every connection."""
        for _, transport in self._nodes:
            await transport.aclose()


@define
class TimedLoad(Load):
    """Clients that also remember from when to when they waited."""

    spans_s: dict[int, tuple[float, float]] = field(factory=dict)

    async def _ask(self, asked: Asked, secret: str) -> None:
        began_s = time.monotonic()
        await super()._ask(asked, secret)
        self.spans_s[id(asked)] = (began_s, time.monotonic())

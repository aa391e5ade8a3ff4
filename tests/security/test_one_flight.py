"""A key that no process knows yet is looked up once, however many requests come with it at once."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Final

from tests.gateway import Gateway
from tests.security import wire
from tests.security.cases import CHAT

AT_ONCE: Final = 160
AUTHZ_PROCESSES: Final = 2


def test_first_requests_of_a_cold_key(gateway: Gateway) -> None:
    """160 first requests at once with one valid key over two processes of authz are all served."""
    processes = [each for each in gateway.stack.facts()["processes"] if each["name"].startswith("authz-")]
    assert AUTHZ_PROCESSES == len(processes)
    head = (
        "POST /api/chat HTTP/1.1\r\nHost: gateway\r\n"
        f"Authorization: Bearer {gateway.create_key('cold')}\r\nContent-Length: {len(CHAT)}\r\n\r\n"
    )
    with ExitStack() as stack:
        lines = [stack.enter_context(wire.line(gateway.url)) for _ in range(AT_ONCE)]
        for line in lines:  # a client library would let the first be answered before the last is sent
            line.send(head.encode() + CHAT)
        statuses = Counter(line.read("POST").status for line in lines)
    assert {200: AT_ONCE} == statuses

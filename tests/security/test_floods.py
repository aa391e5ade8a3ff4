"""What one connection of HTTP/2 can be filled with costs bounded memory, and leaves nothing taken."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncpg

from tests.gateway import Gateway
from tests.security import frames
from tests.security.cases import CHAT
from tests.security.frames import Fields, Frames
from tests.security.observed import Witness
from tests.up.stacks import until

RESETS: Final = 3_000
FIELD_FRAMES: Final = 8_192
"""Of 16 KiB: 128 MiB of fields."""
STREAMS: Final = 100
"""As many as Caddy lets a connection have open, and fewer."""
MOST_BYTES: Final = 64 << 20
"""Of memory that Caddy may need for any of this beyond what it has, its garbage included."""
_PEAK: Final = re.compile(r"VmHWM:\s+(\d+) kB")


def fields_of(key: str) -> Fields:
    """The fields of a chat."""
    asked = ((":method", "POST"), (":scheme", "http"), (":authority", "gateway"), (":path", "/api/chat"))
    return (*asked, ("authorization", f"Bearer {key}"))


@contextmanager
def bounded(gateway: Gateway) -> Iterator[None]:
    """Hold that Caddy's memory stays within its bound meanwhile."""
    process = Path(f"/proc/{gateway.stack.pid('caddy')}")
    (process / "clear_refs").write_text("5")  # the peak becomes what it has now: proc(5)
    before = _peak_bytes(process)
    yield
    assert MOST_BYTES > _peak_bytes(process) - before


def _peak_bytes(process: Path) -> int:
    found = _PEAK.search((process / "status").read_text())
    assert found
    return int(found[1]) << 10


def is_served(gateway: Gateway, key: str) -> bool:
    """Return whether a request with the key is served on a connection of its own."""
    with frames.opened(gateway.url) as other:
        return other.ask(fields_of(key), CHAT).status == 200


async def open_requests(gateway: Gateway) -> int:
    """Count the requests that are begun and not ended, by the books."""
    connection = await asyncpg.connect(gateway.database_url)
    try:
        found: int = await connection.fetchval("SELECT count(*) FROM open_requests")
        return found
    finally:
        await connection.close()


def nothing_is_open(gateway: Gateway) -> bool:
    """Return whether every request has ended."""
    return asyncio.run(open_requests(gateway)) == 0


def cancel(opened: Frames, key: str) -> None:
    """Send many requests, and cancel each at once."""
    for _ in range(RESETS):
        opened.reset(fields_of(key), CHAT)


def test_requests_cancelled_at_once(gateway: Gateway) -> None:
    """Thousands of requests that are cancelled as they come leave the key's one slot free, and none open."""
    key = gateway.create_key("cancels", "--concurrency", "1")
    assert is_served(gateway, key)
    with bounded(gateway), frames.opened(gateway.url) as opened:
        cancel(opened, key)
        until(lambda: is_served(gateway, gateway.key))
    until(lambda: is_served(gateway, key))
    until(lambda: nothing_is_open(gateway))


def test_strangers_requests_cancelled_at_once(gateway: Gateway, witness: Witness, stranger: str) -> None:
    """Those of an unknown key reach no backend, and others are served meanwhile."""
    witness.forget()
    with bounded(gateway), frames.opened(gateway.url) as opened:
        cancel(opened, stranger)
        assert [] == witness.hits()
        until(lambda: is_served(gateway, gateway.key))


def test_fields_without_end(gateway: Gateway, witness: Witness) -> None:
    """Fields that go on in frame after frame end their connection, and are not kept."""
    witness.forget()
    with bounded(gateway), frames.opened(gateway.url) as opened:
        opened.go_on(fields_of(gateway.key), FIELD_FRAMES)
        assert 0 == opened.read().status
        assert opened.is_over
    assert [] == witness.hits()
    assert is_served(gateway, gateway.key)


def test_many_bodies_that_never_come(gateway: Gateway, witness: Witness) -> None:
    """A hundred bodies of one connection that stay away take no slot, and nothing once it has gone."""
    key = gateway.create_key("stalls", "--concurrency", "1")
    assert is_served(gateway, key)
    witness.forget()
    with bounded(gateway), frames.opened(gateway.url) as opened:
        for _ in range(STREAMS):
            opened.begin(fields_of(key), CHAT[:-1], is_whole=False)
        assert is_served(gateway, key)
    assert is_served(gateway, key)
    assert 2 == len(witness.hits())


def test_a_patient_client_is_answered(gateway: Gateway) -> None:
    """The frames of these tests are good ones: one request among few that are cancelled is answered."""
    with frames.opened(gateway.url) as opened:
        opened.reset(fields_of(gateway.key), CHAT)
        assert 200 == opened.ask(fields_of(gateway.key), CHAT).status

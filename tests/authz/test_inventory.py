"""What backends have is known without waiting for any of them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import FrameType

import pytest
from attrs import evolve

from authz.backends.backend import Backend
from authz.backends.inventory import Inventory, Model, Seen
from authz.decision import checks
from authz.decision.refusals import Reason
from tests.authz.backend_kinds import Scripted, ollama, raw_server
from tests.authz.test_terms import IDENTITY
from tests.backend.serving import served

WITHIN_S = 10.0


@asynccontextmanager
async def polling(backends: Sequence[Backend], *, poll_s: float = 60) -> AsyncIterator[Inventory]:
    """An inventory that polls; every backend that answers has been asked once."""
    inventory = Inventory(backends, poll_s=poll_s)
    running = asyncio.create_task(inventory.run())
    try:
        await inventory.looked(within_s=0.5)
        yield inventory
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(is_met: Callable[[], bool]) -> None:
    """Wait for what a poll must bring about."""
    async with asyncio.timeout(WITHIN_S):
        while not is_met():
            await asyncio.sleep(0.01)


def names(found: Sequence[Seen]) -> list[str]:
    """Return the names of backends."""
    return [seen.backend.name for seen in found]


async def test_hanging_backend_hides_nothing() -> None:
    """While one backend never answers, what the other has is known, and what nothing has is known too."""
    with served(Scripted(lambda _: None)) as hanging, served(Scripted(ollama("m"))) as good:
        async with polling([Backend("hanging", hanging), Backend("good", good)]) as inventory:
            assert ["good"] == names(inventory.backends_of("M:latest"))
            assert () == inventory.backends_of("none")
            assert inventory.is_live


_BODY = b'{"version":"0.1","models":[{"name":"m"}]}'
TRUTH = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
LIES = [
    b"no http",
    b'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"a":\xff\xfe}',
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
    b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"models":[{}]}',
    b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"[" * 200_000,
    b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nabcd",
    b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
]


@pytest.mark.parametrize("lie", LIES)
async def test_lying_backend_is_asked_again(lie: bytes) -> None:
    """No answer ends the polling of a backend: when it answers as an Ollama, it is live."""
    reply = [lie]
    async with raw_server(reply) as url, polling([Backend("b", url)], poll_s=0.05) as inventory:
        await asyncio.wait_for(inventory._pollers["b"].looked.wait(), WITHIN_S)
        assert not inventory.is_live
        reply[0] = TRUTH
        await until(lambda: inventory.is_live)


async def test_body_without_an_end_is_given_up() -> None:
    """An answer that drips is one that never comes."""
    async with raw_server([b"HTTP/1.1 200 OK\r\n\r\n"]) as url, polling([Backend("b", url)]) as inventory:
        began = time.monotonic()
        await asyncio.wait_for(inventory._pollers["b"].looked.wait(), WITHIN_S)
        assert time.monotonic() - began < 5
        assert not inventory.is_live


async def test_dead_backend_comes_last() -> None:
    """A backend that has the model but does not answer is named after those that do."""
    first = Scripted(ollama("m"))
    with served(Scripted(ollama("m"))) as b, served(first) as a:
        async with polling([Backend("a", a), Backend("b", b)]) as inventory:
            assert ["a", "b"] == names(inventory.backends_of("m"))
            first.answer = lambda _: b"broken"
            await until(lambda: names(inventory.backends_of("m")) == ["b", "a"])
            assert [True, False] == [seen.is_live for seen in inventory.backends_of("m")]


async def test_load_is_known_within_half_a_second() -> None:
    """A model is sought first where it is loaded, half a second after the load at the latest."""
    second = Scripted(ollama("m"))
    with served(Scripted(ollama("m"))) as a, served(second) as b:
        async with polling([Backend("a", a), Backend("b", b)]) as inventory:
            second.answer = ollama("m", loaded="m:latest")
            began = time.monotonic()
            await until(lambda: names(inventory.backends_of("m")) == ["b", "a"])
            assert time.monotonic() - began < 0.5


async def test_new_model_is_found_by_being_asked_for() -> None:
    """What is asked for in vain is looked for, though not more than once a second."""
    app = Scripted(ollama("m"))
    now = [0.0]
    with served(app) as url:
        inventory = Inventory([Backend("a", url)], poll_s=60, now_s=lambda: now[0])
        await inventory.looked(within_s=WITHIN_S)
        app.answer = ollama("m", "new")
        inventory.look_again()
        assert () == inventory.backends_of("new")
        now[0] = 1.0
        inventory.look_again()
        await until(lambda: inventory.backends_of("new") != ())
        assert 2 == app.asked.count("/api/tags")
        inventory.use([])


async def test_a_long_absence_is_not_retried_in_silence() -> None:
    """For 20 s clients repeat what a backend that is away would answer; then their users are shown why."""
    app = Scripted(ollama("m"))
    now = [0.0]
    with served(app) as url:
        inventory = Inventory([Backend("a", url)], poll_s=60, now_s=lambda: now[0])

        def refused(model: str) -> tuple[Reason, str | None]:
            refusal = checks.without_backend(model, IDENTITY, inventory)
            return refusal.reason, refusal.headers.get("x-should-retry")

        assert (Reason.BACKEND_UNAVAILABLE, None) == refused("m")  # nothing was asked yet
        await inventory.looked(within_s=WITHIN_S)
        assert (Reason.MODEL_UNKNOWN, None) == refused("none")
        app.answer = lambda _: b"broken"
        await until(lambda: not inventory.is_live)
        for now[0], retry in ((20.0, None), (20.1, "false")):
            inventory.look_again()
            assert [(Reason.BACKEND_UNAVAILABLE, retry)] * 2 == [refused("m"), refused("none")]
        app.answer = ollama("m")
        inventory.look_again()
        await until(lambda: inventory.is_live)
        assert [0.0] == [inventory.away_s(seen) for seen in inventory.seen]
        inventory.use([])


async def test_rotated_token_loses_nothing() -> None:
    """A new token is sent from now on, and the backend stays live all the while."""
    app = Scripted(ollama("m"))
    with served(app) as url:
        before = Backend("a", url, "old")
        async with polling([before]) as inventory:
            after = evolve(before, token="new")
            inventory.use([after, Backend("c", "http://127.0.0.1:9")])
            assert ["a"] == names([seen for seen in inventory.backends_of("m") if seen.is_live])
            await until(lambda: (b"authorization", b"Bearer new") in app.headers[-1])
            inventory.use([Backend("c", "http://127.0.0.1:9")])
            assert () == inventory.backends_of("m")
            assert ["c"] == names(inventory.seen)


async def test_backend_is_sent_what_caddy_sends() -> None:
    """A probe has the Host and the credential of a request, and nothing of its own."""
    app = Scripted(ollama("m"))
    with served(app) as url:
        async with polling([Backend("a", url, "t", "X-Key", "")]):
            assert [(b"host", url.removeprefix("http://").encode()), (b"x-key", b"t")] == app.headers[0]


def _calls(work: Callable[[], object]) -> int:
    """Count the calls that some work makes, of Python and of C."""
    events: list[str] = []

    def note(_: FrameType, event: str, __: object) -> None:
        events.append(event)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return len(events)


async def test_models_are_found_in_constant_time() -> None:
    """A lookup among 600 models takes no longer than one among two."""
    seen = [
        Seen(Backend(name, "http://127.0.0.1:9"), models=tuple(Model(f"m{n}", b"") for n in range(300)))
        for name in ("a", "b")
    ]
    inventory = Inventory([each.backend for each in seen], poll_s=60)
    for each in seen:
        inventory._pollers[each.backend.name].seen = each
    inventory._index()

    assert ["a", "b"] == names(inventory.backends_of("M299"))
    steps: list[int] = []
    for number in (0, 299):
        inventory.backends_of(f"m{number}")  # the canonical form of a name is kept
        steps.append(_calls(partial(inventory.backends_of, f"m{number}")))
    assert steps[0] == steps[1]
    inventory.use([])

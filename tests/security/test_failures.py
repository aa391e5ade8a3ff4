"""G2: every failure of authz, Redis, Postgres, metering or a backend ends in 4xx/5xx with words.

Nothing is forwarded meanwhile, nothing is billed, and all heals by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Final

import pytest
from attrs import frozen
from redis import Redis

from authz.limiter import keyspace
from authz.stack import embedded
from authz.types import Dialect
from tests.gateway import Gateway, running
from tests.security import canary, wire
from tests.security.broken import Broken
from tests.security.cases import CHAT, PATHS
from tests.security.observed import Witness
from tests.security.processes import halted, killed
from tests.security.refusing import sentence
from tests.security.wire import Reply
from tests.up.stacks import until

METERED: Final = tuple((dialect, f"POST {path}") for dialect, path in PATHS.items())
READS: Final = ((Dialect.OLLAMA, "GET /api/tags"), (Dialect.OPENAI, "GET /v1/models"))
DEADLINE_S: Final = 2


@frozen
class Fragile:
    """A gateway of which parts may fail, with a good backend and a broken one."""

    gateway: Gateway
    broken: Broken
    witness: Witness

    def ask(self, line: str, *, key: str | None = None, model: str = "demo") -> Reply:
        """Ask with a valid key, or another."""
        body = CHAT.replace(b"demo", model.encode()) if line.startswith("POST") else b""
        head = (
            f"{line} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key or self.gateway.key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return wire.ask(self.gateway.url, head.encode() + body)

    def chat(self, *, key: str | None = None, model: str = "demo") -> int:
        """The status of a chat."""
        return self.ask("POST /api/chat", key=key, model=model).status

    def refusals(
        self,
        asked: tuple[tuple[Dialect, str], ...],
        *,
        statuses: set[int],
        key: str | None = None,
        model: str = "demo",
        is_passing: bool = True,
    ) -> list[Reply]:
        """Ask all at once; each must be refused in words that say whether to come back, and nothing else."""
        replies = self.at_once(asked, key=key, model=model)
        assert {reply.status for reply in replies} <= statuses
        self.are_proper(asked, replies, is_passing=is_passing)
        return replies

    def at_once(
        self, asked: tuple[tuple[Dialect, str], ...], *, key: str | None = None, model: str = "demo"
    ) -> list[Reply]:
        """Ask all at once."""
        with ThreadPoolExecutor(len(asked)) as askers:
            return list(askers.map(lambda each: self.ask(each[1], key=key, model=model), asked))

    def are_proper(
        self, asked: tuple[tuple[Dialect, str], ...], replies: list[Reply], *, is_passing: bool = True
    ) -> None:
        """Check that refusals say in their dialect whether to come back, and nothing else."""
        for (dialect, _), reply in zip(asked, replies, strict=True):
            again = (reply.headers.get("retry-after"), reply.headers.get("x-should-retry"))
            assert again == (("1", None) if is_passing else (None, "false"))
            assert sentence(reply, dialect)
            assert not any(inner in reply.body for inner in (b"sock", b"127.0.0.1", b"postgres", b"refused"))

    def nothing_arrived(self) -> bool:
        """Return whether no backend was asked since its last reset."""
        return [] == self.witness.hits() and [] == self.broken.hits

    def heals(self) -> None:
        """Wait until a chat is answered again."""
        until(lambda: 200 == self.chat())

    def warm(self, key: str) -> None:
        """Make a key known to both authz processes, which take turns."""
        assert [200] * 4 == [self.chat(key=key) for _ in range(4)]
        self.witness.forget()


@pytest.fixture(scope="module")
def stack(backend_url: str) -> Iterator[Fragile]:
    """The gateway of this module, with a good backend and a broken one."""
    broken = Broken()
    backends = [{"name": "good", "url": backend_url}, {"name": "broken", "url": broken.url}]
    settings = {
        "OLLAMA_BACKENDS": json.dumps(backends),
        "GATEWAY_DEADLINE_S": str(DEADLINE_S),
        "GATEWAY_POLL_S": "1",
    }
    with running(backend_url, **settings) as gateway, Witness.of(gateway) as witness:
        yield Fragile(gateway, broken, witness)
    broken.close()


@pytest.fixture
def fragile(stack: Fragile) -> Fragile:
    """The same, as if no Ask had been sent."""
    stack.witness.forget()
    stack.broken.hits.clear()
    return stack


@pytest.fixture
def redis(fragile: Fragile) -> Iterator[Redis]:
    """The gateway's own Redis."""
    with Redis.from_url(embedded.redis_url(fragile.gateway.stack.state)) as client:
        yield client


@pytest.mark.parametrize(
    ("failure", "parts", "statuses"),
    [
        (halted, ("authz-0", "authz-1"), {504}),
        (killed, ("authz-0", "authz-1"), {502, 503}),
        (halted, ("redis",), {503}),
        (killed, ("redis",), {503}),
        (halted, ("redis", "postgres"), {503}),
    ],
    ids=lambda each: each.__name__ if callable(each) else "-".join(map(str, each)),
)
def test_outage_refuses_everything(
    fragile: Fragile,
    failure: Callable[..., AbstractContextManager[None]],
    parts: tuple[str, ...],
    statuses: set[int],
) -> None:
    """G2: without the decision or its counters nothing passes, and nothing is billed."""
    with failure(fragile.gateway.stack, *parts):
        replies = fragile.refusals((*METERED, *READS), statuses=statuses)
        assert 200 == fragile.ask("GET /healthz").status
        assert fragile.ask("GET /readyz").status >= 500
        assert fragile.nothing_arrived()
    fragile.heals()
    rows = fragile.witness.settled(reply.request_id for reply in replies)
    assert {0} == {row.tokens for row in rows.values()}
    assert {row.outcome for row in rows.values()} <= {"denied", "authz_failed"}


def test_postgres_outage_refuses_unseen_keys(fragile: Fragile, stranger: str) -> None:
    """G2: a key that Postgres has not vouched for is refused, a key in the cache goes on."""
    unseen = fragile.gateway.create_key("unseen")
    fragile.warm(fragile.gateway.key)
    with halted(fragile.gateway.stack, "postgres"):
        fragile.refusals((*METERED, *READS), statuses={503}, key=unseen)
        fragile.refusals(METERED[:1], statuses={503}, key=stranger)
        assert 401 == fragile.chat(key="nz_malformed")
        assert fragile.nothing_arrived()
        assert 200 == fragile.chat()
        assert 200 == fragile.ask("GET /api/tags").status
    until(lambda: 200 == fragile.chat(key=unseen))


def test_postgres_outage_refuses_changed_keys(fragile: Fragile, redis: Redis) -> None:
    """L7, G2: a cached key of which Redis knows a newer version waits for Postgres."""
    changed = fragile.gateway.create_key("changed")
    fragile.warm(changed)
    (row,) = fragile.witness.settled([fragile.ask("POST /api/chat", key=changed).request_id]).values()
    assert row.tenant
    fragile.witness.forget()
    versions, field = keyspace.tenant(row.tenant), keyspace.version(row.key)
    with halted(fragile.gateway.stack, "postgres"):
        redis.hincrby(versions, field, 1)
        fragile.refusals(METERED, statuses={503}, key=changed)
        assert fragile.nothing_arrived()
        redis.hincrby(versions, field, -1)
    until(lambda: 200 == fragile.chat(key=changed))


def test_metering_outage_refuses_budgets(fragile: Fragile, redis: Redis) -> None:
    """G2: a budget needs metering that bills it; keys without one go on."""
    budgeted = fragile.gateway.create_key("budgeted", "--tokens-per-day", "1000000")
    assert 200 == fragile.chat(key=budgeted)
    with halted(fragile.gateway.stack, "metering"):
        # Its sign of life ends by itself after a minute; each authz believes in one for a second.
        redis.delete(*redis.keys(keyspace.metering("*")))
        until(lambda: {503} == {fragile.chat(key=budgeted) for _ in range(4)})
        fragile.witness.forget()
        fragile.refusals(METERED, statuses={503}, key=budgeted)
        assert fragile.nothing_arrived()
        assert 200 == fragile.chat()
    until(lambda: 200 == fragile.chat(key=budgeted))


@pytest.mark.parametrize("model", ["half", "resetting", "closing", "garbled", "switching"])
def test_broken_backend_is_a_bad_gateway(fragile: Fragile, model: str) -> None:
    """A backend that breaks before its answer is 502, is asked once, and costs nothing."""
    replies = fragile.refusals(METERED, statuses={502}, model=model)
    assert [model] * len(METERED) == fragile.broken.hits
    rows = fragile.witness.settled(reply.request_id for reply in replies)
    assert {("upstream_error", 0)} == {(row.outcome, row.tokens) for row in rows.values()}


def test_hanging_backend_is_left_at_the_deadline(fragile: Fragile) -> None:
    """A silent backend holds a request no longer than `deadline_s`: 504, and not to be repeated.

    All that time the model, which is not in memory, may still have been loaded: that costs nothing.
    """
    replies = fragile.refusals(METERED, statuses={504}, model="hanging", is_passing=False)
    rows = fragile.witness.settled(reply.request_id for reply in replies)
    assert {("cut_deadline", "none")} == {(row.outcome, row.usage_source) for row in rows.values()}


def test_stopped_backend_is_unavailable(fragile: Fragile) -> None:
    """A backend that is stopped is 502, and 503 once it has been noticed; the others go on."""
    with fragile.broken.stopped():
        replies = fragile.refusals(METERED, statuses={502, 503}, model="closing")
        until(lambda: {503} == {fragile.chat(model="closing") for _ in range(4)})
        replies += fragile.refusals(METERED, statuses={503}, model="closing")
        assert 200 == fragile.chat()
    until(lambda: 502 == fragile.chat(model="closing"))
    assert {"closing"} == set(fragile.broken.hits)
    rows = fragile.witness.settled(reply.request_id for reply in replies)
    assert {0} == {row.tokens for row in rows.values()}


def test_flood_of_wrong_keys_is_slowed_down(fragile: Fragile, stranger: str) -> None:
    """L1: a source that guesses keys must wait, before Postgres is asked; one with a key goes on."""
    fragile.warm(fragile.gateway.key)
    replies: list[Reply] = []

    def are_all_limited() -> bool:
        """Each second one may try again, and on a slow machine all take longer."""
        replies[:] = fragile.at_once((*METERED, *READS), key=stranger)
        return {429} == {reply.status for reply in replies}

    until(are_all_limited)
    fragile.are_proper((*METERED, *READS), replies)
    assert fragile.nothing_arrived()
    assert 200 == fragile.chat()


def test_failures_leak_no_key(fragile: Fragile) -> None:
    """C3: no failure above has left a key in a file, table, counter or metric."""
    key = fragile.gateway.key
    fragile.heals()
    assert [] == canary.found(canary.sinks(fragile.gateway), canary.needles(key))

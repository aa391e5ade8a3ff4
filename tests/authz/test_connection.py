"""One connection, many callers: answers never get mixed up, and a dead Redis is noticed at once."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from authz.errors import LimiterUnavailable, SettingsError
from authz.limiter import connection
from authz.limiter.admission import Admitted
from authz.limiter.connection import Link
from authz.limiter.limiter import Limiter
from authz.stack import embedded
from authz.types import Limits
from tests.authz.limiting import Desk


@pytest.fixture
def server() -> Iterator[embedded.Server]:
    """A Redis of this test alone, that may be stopped and killed."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder, embedded.redis_server(Path(folder)) as running:
        yield running


@pytest.fixture
async def own(server: embedded.Server) -> AsyncIterator[Limiter]:
    """A limiter on it."""
    opened = await Limiter.connect(server.url)
    yield opened
    await opened.close()


async def until(is_met: Callable[[], Awaitable[object]]) -> None:
    """Ask again until it is so; the suite's time limit ends what never comes."""
    while not await is_met():
        await asyncio.sleep(0.005)


async def is_back(limiter: Limiter) -> bool:
    """Return whether Redis can be asked again."""
    try:
        limiter.ready()
    except LimiterUnavailable:
        return False
    return True


async def is_disconnected(limiter: Limiter) -> bool:
    """The opposite."""
    return not await is_back(limiter)


def link_of(limiter: Limiter) -> Link:
    """The living connection."""
    return limiter._redis.of(uuid4())


async def pid_of(url: str) -> int:
    """The process that serves this URL."""
    async with Redis.from_url(url) as redis:
        return int((await redis.info("server"))["process_id"])


async def test_each_caller_gets_its_own_answer(limiter: Limiter) -> None:
    """A thousand callers at once, some of which leave early, each get the answer to their own command."""

    async def echo(number: int) -> int:
        return int(await link_of(limiter).send("ECHO", number))

    tasks = [asyncio.create_task(echo(number)) for number in range(1000)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number in range(1000) if number % 3] == [n for n in found if isinstance(n, int)]


async def test_what_cannot_be_sent_shifts_no_answer(limiter: Limiter) -> None:
    """A command that can't be packed fails its caller alone: no caller gets another's answer."""
    link = link_of(limiter)
    first = link.send("ECHO", "first")
    with pytest.raises(TypeError):
        await link.send("ECHO", None)  # type: ignore[arg-type]
    assert (b"first", b"second") == (await first, await link.send("ECHO", "second"))


async def test_an_error_is_its_own_commands_alone(limiter: Limiter) -> None:
    """An error answer concerns one command, in one sentence; those around it are answered."""
    link, tenant = link_of(limiter), uuid4()
    await link.send("SET", f"nz:{{{tenant}}}", "not a hash")
    before, after = link.send("ECHO", 1), limiter.versions(tenant, tenant)
    with pytest.raises(LimiterUnavailable, match="Redis refused a command: WRONGTYPE"):
        await after
    assert (b"1", b"2") == (await before, await link.send("ECHO", 2))


async def test_what_is_told_takes_no_answer(limiter: Limiter) -> None:
    """A command that is told is run in its turn, whatever Redis answers; those around it are answered."""
    link = link_of(limiter)
    before = link.send("ECHO", 1)
    link.tell("SET", "told", 2)
    link.tell("HGET", "told", "of no hash")
    assert (b"1", b"2") == (await before, await link.send("GET", "told"))


async def test_forgotten_scripts_are_sent_again(limiter: Limiter, redis_url: str) -> None:
    """L2: after SCRIPT FLUSH every admission in flight is answered, and counted once."""
    async with Redis.from_url(redis_url) as redis:
        desk = Desk(limiter, redis)
        await desk.open(Limits(requests_per_minute=40))
        await redis.script_flush()
        asks = [desk.ask() for _ in range(20)]
        decisions = await asyncio.gather(*(desk.admit(ask) for ask in asks))
        assert all(isinstance(decision, Admitted) for decision in decisions)
        last = await desk.admit()
        assert isinstance(last, Admitted)
        assert last.requests is not None
        assert 19 == last.requests.left


async def test_dead_redis_costs_nothing(server: embedded.Server, own: Limiter) -> None:
    """Once a connection is known to be dead, a refused call takes less than a millisecond, with a reason."""
    server.kill()
    await until(lambda: is_disconnected(own))
    began = time.perf_counter()
    for _ in range(100):
        with pytest.raises(LimiterUnavailable, match="check that it runs"):
            await own.versions(uuid4(), uuid4())
    assert 0.1 > time.perf_counter() - began


async def test_callers_in_flight_fail_with_the_connection(server: embedded.Server, own: Limiter) -> None:
    """A caller that waits when Redis dies gets an error; nothing is sent a second time."""
    os.kill(await pid_of(server.url), signal.SIGSTOP)
    waiting = [asyncio.ensure_future(own.now()) for _ in range(20)]
    await asyncio.sleep(0)
    server.kill()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert ["Redis did not answer: check that it runs."] * 20 == [str(error) for error in found]


async def test_hung_redis_is_given_up(
    server: embedded.Server, own: Limiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that takes commands and never answers is dead to us after a moment, and found when it wakes."""
    monkeypatch.setattr(connection, "CONNECT_WITHIN_S", 0.1)
    pid = await pid_of(server.url)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(LimiterUnavailable, match="did not answer"):
        await own.now()
    assert 2 * connection.ANSWER_WITHIN_S + 0.3 > time.monotonic() - began
    began = time.monotonic()
    with pytest.raises(LimiterUnavailable):
        await own.now()
    assert 0.01 > time.monotonic() - began
    os.kill(pid, signal.SIGCONT)
    await until(lambda: is_back(own))
    assert b"PONG" == await link_of(own).send("PING")


async def test_hung_redis_is_given_up_without_a_caller(server: embedded.Server, own: Limiter) -> None:
    """A Redis that hangs is noticed, too, where nobody waits for what it was told."""
    pid = await pid_of(server.url)
    os.kill(pid, signal.SIGSTOP)
    link_of(own).tell("PING")
    await until(lambda: is_disconnected(own))
    os.kill(pid, signal.SIGCONT)
    await until(lambda: is_back(own))


async def test_caller_that_leaves_during_a_hang_harms_no_other(server: embedded.Server, own: Limiter) -> None:
    """A caller cancelled while Redis hangs takes no answer away from those who stayed."""
    pid = await pid_of(server.url)
    os.kill(pid, signal.SIGSTOP)
    sent = [asyncio.ensure_future(link_of(own).send("ECHO", number)) for number in range(3)]
    sent[1].cancel()
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGCONT)
    assert (b"0", b"2") == (await sent[0], await sent[2])


async def test_link_kept_across_a_death_fails(server: embedded.Server, own: Limiter) -> None:
    """A command on a connection that died in the meantime fails at once instead of waiting without end."""
    link = link_of(own)
    server.kill()
    await until(lambda: is_disconnected(own))
    with pytest.raises(LimiterUnavailable, match="did not answer"):
        await link.send("PING")


async def test_reconnects_to_a_new_run(server: embedded.Server, own: Limiter) -> None:
    """L6: after a restart the new run is learnt before anything is asked of it: old hashes are lost."""
    async with Redis.from_url(server.url) as redis:
        desk = Desk(own, redis)
        await desk.open()
        first = own.run(desk.tenant)
        server.kill()
        await until(lambda: is_disconnected(own))
        server.start()
        await until(lambda: is_back(own))
        assert first != own.run(desk.tenant)
        assert "lost" == getattr(await desk.admit(), "reason", None)


async def test_evicting_redis_is_refused(server: embedded.Server) -> None:
    """A Redis that may evict budgets is no limiter; the reason says what to set."""
    async with Redis.from_url(server.url) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(LimiterUnavailable, match="set its maxmemory-policy to noeviction"):
        await Limiter.connect(server.url)


async def test_replica_is_refused(server: embedded.Server, own: Limiter) -> None:
    """L6: a master that becomes a replica is left by whoever is connected, and refused by whoever comes."""
    async with Redis.from_url(server.url) as redis:
        await redis.replicaof("127.0.0.1", "9")
    with pytest.raises(LimiterUnavailable, match=r"(?i)read ?only|replica"):
        await own.create(uuid4(), 1)
    await until(lambda: is_disconnected(own))
    with pytest.raises(LimiterUnavailable, match="point REDIS_URL at its master"):
        await Limiter.connect(server.url)


async def test_master_that_was_replaced_is_another_run(server: embedded.Server, own: Limiter) -> None:
    """L6: one that was a replica meanwhile has lost writes, though its process and its connections live."""
    async with Redis.from_url(server.url) as redis:
        desk = Desk(own, redis)
        await desk.open()
        first = own.run(desk.tenant)
        await redis.replicaof("127.0.0.1", "9")
        await redis.replicaof("NO", "ONE")

        async def is_another_run() -> bool:
            return await is_back(own) and first != own.run(desk.tenant)

        await until(is_another_run)
        assert "lost" == getattr(await desk.admit(), "reason", None)


async def test_full_redis_admits_nothing(server: embedded.Server, own: Limiter) -> None:
    """G2: a Redis without memory refuses the admission whole: not one byte of it is written."""
    async with Redis.from_url(server.url) as redis:
        desk = Desk(own, redis)
        await desk.open(Limits(requests_per_minute=5))
        before = await desk.content()
        await redis.config_set("maxmemory", "100kb")
        with pytest.raises(LimiterUnavailable, match="Redis is full: raise its maxmemory"):
            await desk.admit()
        await redis.config_set("maxmemory", "0")
        assert before == await desk.content()


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "redis://127.0.0.1:port/0", "unix:///x?no_such=1"])
async def test_bad_url_is_one_sentence(url: str) -> None:
    """A REDIS_URL that names no Redis is a wrong setting, not an outage."""
    with pytest.raises(SettingsError, match="REDIS_URL can't be used"):
        Limiter(url)


async def test_url_can_not_change_what_we_rely_on(server: embedded.Server) -> None:
    """Whatever options a REDIS_URL names, answers stay bytes and a command is sent once."""
    options = "decode_responses=true&protocol=3&socket_timeout=0.001&retry_on_timeout=true"
    limiter = await Limiter.connect(f"{server.url}&{options}")
    assert b"x" == await link_of(limiter).send("ECHO", "x")
    assert () == await limiter.overdue(uuid4(), await limiter.now())
    await limiter.close()


async def test_absent_redis_is_one_sentence(tmp_path: Path) -> None:
    """A Redis that is not there is an outage, and says what to check."""
    with pytest.raises(LimiterUnavailable, match="check REDIS_URL and that it runs"):
        await Limiter.connect(f"unix://{tmp_path}/none.sock")


async def test_close_lets_no_caller_wait(server: embedded.Server) -> None:
    """Closing fails whoever waits, and whoever comes later."""
    limiter = await Limiter.connect(server.url)
    pid = await pid_of(server.url)
    os.kill(pid, signal.SIGSTOP)
    waiting = asyncio.ensure_future(limiter.now())
    await asyncio.sleep(0)
    await limiter.close()
    os.kill(pid, signal.SIGCONT)
    for call in (waiting, limiter.now()):
        with pytest.raises(LimiterUnavailable):
            await call

"""Commands of a whole process, in order, over one redis-py connection.

A pool costs several times the CPU of a request; one connection that sends whatever is due in each
turn of the event loop does not. The handshake stays redis-py's job; what comes after it is a protocol of
asyncio's own, without a task or stream between Redis and who waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import hiredis
from attrs import frozen
from redis._parsers import BaseParser  # its mapping of errors to exceptions has no public name
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import (
    AskError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from authz.errors import LimiterUnavailable
from authz.limiter.address import CONNECT_WITHIN_S, Server

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable, Sequence
    from uuid import UUID

    from redis.asyncio.connection import AbstractConnection

    Look = Callable[["Link"], Awaitable[None]]

Argument = str | bytes | int | float

RETRY_AFTER_S: Final = 0.25
"""The pause between two attempts to reach a dead Redis; until its end every call fails at once."""

ANSWER_WITHIN_S: Final = 0.7
"""A connection without any answer for this long, while one is due, is given up within twice this."""

TURN_S: Final = 0.5
"""A living connection's Redis is looked at so often: four times within the age of a Grant."""

UNREACHABLE: Final = "Redis did not answer: check that it runs."
NO_CLUSTER: Final = "Redis is no node of a cluster: write REDIS_URL as redis://HOST:PORT."
IN_CLUSTER: Final = "Redis is a node of a cluster: write REDIS_URL as redis+cluster://HOST:PORT,HOST:PORT."

_INCOMPLETE: Final = object()
"""What the reader returns while an answer is not whole."""

_pack: Final[Any] = hiredis.pack_command  # its stub allows for one argument only


@frozen
class Script:
    """A Lua script's text, and the digest under which Redis knows it."""

    text: str
    sha: str


class Link(asyncio.Protocol):
    """One living connection: answers come in the order of the commands.

    Takes the place of redis-py's streams at the transport of a connection whose handshake is done.
    """

    def __init__(self, connection: AbstractConnection, server: Server) -> None:
        self.server = server
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=BaseParser.parse_error, notEnoughData=_INCOMPLETE)
        self._due: list[bytes] = []
        self._waiting: deque[Future[Any] | None] = deque()
        self._taken = 0
        self._ended = self._loop.create_future()
        self.run_id = ""
        self._transport = _transport(connection)
        self._transport.set_protocol(self)

    @property
    def is_over(self) -> bool:
        """Return whether the connection has ended, so that nothing can be sent any more."""
        return self._ended.done()

    def send(self, *command: Argument) -> Future[Any]:
        """Queue a command; the future gets its answer, a ResponseError or LimiterUnavailable."""
        answer: Future[Any] = self._loop.create_future()
        self.tell(*command, to=answer)
        return answer

    def tell(self, *command: Argument, to: Future[Any] | None = None) -> None:
        """Queue a command; without a future nobody gets its answer."""
        if self.is_over:
            raise LimiterUnavailable(UNREACHABLE)
        packed: bytes = _pack(command)  # first: what can't be sent must not wait for an answer
        self._waiting.append(to)
        if not self._due:
            self._loop.call_soon(self._flush)  # one write for all that this turn sends
        self._due.append(packed)

    async def evaluate(self, script: Script, keys: Sequence[str], clock_us: int, *arguments: Argument) -> Any:
        """Run a script once; its first argument is the clock in µs, 0 for Redis's own.

        Raises LimiterUnavailable if Redis refuses it.
        """
        command = ("EVALSHA", script.sha, len(keys), *keys, clock_us, *arguments)
        try:
            return await self.send(*command)
        except NoScriptError:  # after SCRIPT FLUSH: it has not run, so it can't run twice
            await answer(self.send("SCRIPT", "LOAD", script.text))
            return await answer(self.send(*command))
        except ResponseError as error:
            raise _refused(error) from error

    async def run(self) -> None:
        """Wait for the end of the connection; commands still waiting for an answer then fail.

        It ends, too, when for a whole turn an answer was due and none came.
        """
        try:
            while not self.is_over:
                is_due, taken = bool(self._waiting), self._taken
                await asyncio.wait({self._ended}, timeout=ANSWER_WITHIN_S)
                if is_due and self._taken == taken:
                    return
        finally:
            self._end()

    def data_received(self, data: bytes) -> None:
        """Take the answers that have come."""
        self._reader.feed(data)
        try:
            while not self.is_over and (answer := self._reader.gets()) is not _INCOMPLETE:
                self._take(answer)
        except hiredis.ProtocolError:
            self._end()

    def connection_lost(self, _: Exception | None) -> None:
        """Fail whoever waits."""
        self._end()

    def _flush(self) -> None:
        due, self._due = self._due, []
        if not self.is_over:
            self._transport.write(b"".join(due))

    def _take(self, answer: object) -> None:
        is_failure = isinstance(answer, RedisError)
        if not self._waiting or (is_failure and not isinstance(answer, ResponseError)):
            self._end()  # it loads its data, say
            return
        waiter = self._waiting.popleft()
        self._taken += 1
        if waiter is not None and not waiter.done():  # whoever asked may have left
            if isinstance(answer, ResponseError):
                waiter.set_exception(answer)
            else:
                waiter.set_result(answer)
        if is_failure and (isinstance(answer, ReadOnlyError) or "READONLY" in str(answer)):
            self._end()  # a failover made it a replica: look for its master

    def _end(self) -> None:
        if self.is_over:
            return
        self._ended.set_result(None)
        for waiter in self._waiting:
            if waiter is not None and not waiter.done():
                waiter.set_exception(LimiterUnavailable(UNREACHABLE))
        self._waiting.clear()


def _transport(connection: AbstractConnection) -> Any:
    writer = connection._writer  # noqa: SLF001 (redis-py has no other way to what it has connected)
    if writer is None:
        raise LimiterUnavailable(UNREACHABLE)
    return writer.transport


async def answer(future: Future[Any]) -> Any:
    """Wait for the answer to a command. Raises LimiterUnavailable if Redis refused it."""
    try:
        return await future
    except ResponseError as error:
        raise _refused(error) from error


def _refused(error: ResponseError) -> LimiterUnavailable:
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error):
        return LimiterUnavailable("Redis is full: raise its maxmemory, it takes no writes.")
    if isinstance(error, AskError | TryAgainError):  # a MovedError is an AskError
        return LimiterUnavailable("The cluster moves these keys to another master: try again in a second.")
    if isinstance(error, ClusterDownError):
        return LimiterUnavailable("The cluster lacks a master: start it, or give it a replica.")
    return LimiterUnavailable(f"Redis refused a command: {error}")


class Pipeline:
    """Keeps one link up; without one every call fails at once instead of waiting for it."""

    def __init__(self, pool: Any, *, on_connect: Look, on_turn: Look, server: Server | None = None) -> None:
        self._pool = pool
        self.server = server or Server()
        self._on_connect = on_connect
        self._on_turn = on_turn
        self._link: Link | None = None
        self._reason = "Redis has not been reached yet: try again in a second."
        self._tried = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect, and to reconnect without end, in the background."""
        self._keeper = asyncio.create_task(self._keep())

    async def tried(self) -> None:
        """Wait for the end of the first attempt, whatever came of it."""
        await self._tried.wait()

    async def close(self) -> None:
        """Close the connection; whoever waits for an answer fails."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if isinstance(self._pool, SentinelConnectionPool):
            for sentinel in self._pool.sentinel_manager.sentinels:
                await sentinel.aclose()

    def of(self, _: UUID) -> Link:
        """Return the link to the Redis of a tenant: that of all."""
        return self.link

    def links(self) -> list[Link]:
        """Return every living link. Raises LimiterUnavailable, with the reason, without one."""
        return [self.link]

    def ready(self) -> None:
        """Raise LimiterUnavailable, with the reason, if not every tenant's Redis can be asked."""
        try:
            self.links()
        except LimiterUnavailable as error:
            raise self.server.naming(error) from error

    @property
    def link(self) -> Link:
        """The living link; raises LimiterUnavailable, with the reason, while there is none."""
        if self._link is None or self._link.is_over:
            raise LimiterUnavailable(self._reason)
        return self._link

    async def _keep(self) -> None:
        while True:
            try:
                await self._live()
            except LimiterUnavailable as error:
                self._reason = str(error)
            except (RedisError, OSError) as error:  # a TimeoutError is an OSError
                kind = type(error).__name__
                self._reason = f"{self.server} can't be reached ({kind}): check REDIS_URL and that it runs."
            finally:
                self._tried.set()
            await asyncio.sleep(RETRY_AFTER_S)

    async def _live(self) -> None:
        connection = self._pool.make_connection()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(disconnect, connection)
            async with asyncio.timeout(CONNECT_WITHIN_S):
                await connection.connect()
                link = Link(connection, self.server)
                running = asyncio.create_task(link.run())
                stack.push_async_callback(_end, running)
                await self._on_connect(link)
            self._reason, self._link = UNREACHABLE, link
            stack.callback(setattr, self, "_link", None)
            self._tried.set()
            while not (await asyncio.wait({running}, timeout=TURN_S))[0]:
                try:
                    await self._on_turn(link)
                except LimiterUnavailable as error:  # said before the link is gone, whose end takes a moment
                    self._reason = str(error)
                    raise


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def disconnect(connection: AbstractConnection) -> None:
    """Close a connection of redis-py's, whatever state it is in."""
    with contextlib.suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)

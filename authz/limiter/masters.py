"""The Redis behind a limiter, or the masters of a cluster: their runs, clocks, and what each must know."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from authz.errors import LimiterUnavailable
from authz.limiter import address, keyspace, scripts, wire
from authz.limiter.cluster import Cluster
from authz.limiter.connection import Pipeline, answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime
    from uuid import UUID

    from authz.limiter.connection import Argument, Link

log = structlog.get_logger()

VOUCH_S: Final = 60


class Masters:
    """What is asked of Redis apart from any tenant. Every method raises LimiterUnavailable."""

    def __init__(self, url: str) -> None:
        self.clock_us = 0
        """The time that the scripts use; 0 is Redis's own clock, anything else is for tests."""
        on_connect, on_turn = scripts.prepare, scripts.trust
        self._redis = (
            Cluster(url, on_connect=on_connect, on_turn=on_turn)
            if address.is_cluster(url)
            else Pipeline(address.pools(url)[0], on_connect=on_connect, on_turn=on_turn)
        )

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect and wait for it; raises LimiterUnavailable with the reason."""
        opened = cls(url)
        await opened.start()
        try:
            opened.ready()
        except LimiterUnavailable:
            await opened.close()
            raise
        return opened

    async def start(self) -> None:
        """Connect in the background for as long as this lives; returns after the first attempt."""
        self._redis.start()
        await self._redis.tried()

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.close()

    def ready(self) -> None:
        """Raise LimiterUnavailable, with the reason, if not every tenant's Redis can be asked."""
        self._redis.ready()

    def links(self) -> list[Link]:
        """Return the link to each master that has one. Raises LimiterUnavailable if none has."""
        return self._redis.links()

    def run(self, tenant: UUID) -> str:
        """Return the run of a tenant's Redis."""
        return self._redis.of(tenant).run_id

    @asynccontextmanager
    async def beside_others(self) -> AsyncIterator[None]:
        """Let a master of a cluster be away as long as another one answers: only its own tenants wait."""
        try:
            yield
        except LimiterUnavailable as error:
            await self._of_each(lambda _: ("PING",))
            log.warning("limiter.master_unavailable", reason=str(error))

    async def vouch(self, node: UUID, *, lag_ms: int) -> None:
        """Say that a node's metering lives, and how far it is behind; forgotten after 60 s.

        It is said to every master, so that the tenants of one go on without the others.
        """
        await self._of_each(lambda tag: ("SET", keyspace.metering(node, tag), lag_ms, "EX", VOUCH_S))

    async def lag_ms(self, node: UUID) -> int | None:
        """Return how far a node's metering is behind; None if it has not vouched for 60 s."""
        lags = await self._of_each(lambda tag: ("GET", keyspace.metering(node, tag)))
        return max((int(lag) for lag in lags if lag is not None), default=None)

    async def probe(self) -> None:
        """Write something that is forgotten at once: a Redis that is full or a replica refuses it."""
        self.ready()
        for link in self.links():
            try:
                await answer(link.send("SET", keyspace.probe(link.server.tag), 1, "PX", 1))
            except LimiterUnavailable as error:
                raise link.server.naming(error) from error

    async def now(self, tenant: UUID | None = None) -> datetime:
        """Return the clock of a tenant's Redis; without a tenant the earliest of all that answer."""
        if self.clock_us:
            return wire.moment(self.clock_us)
        if tenant is not None:
            return await clock_of(self._redis.of(tenant))
        return min(map(_moment, await self._of_each(lambda _: ("TIME",))))

    async def _of_each(self, command: Callable[[str], tuple[Argument, ...]]) -> list[Any]:
        """Return what the masters answer; one that does not is left out, unless none does."""
        sent = [answer(link.send(*command(link.server.tag))) for link in self.links()]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        found = [each for each in answers if not isinstance(each, BaseException)]
        if not found:
            raise next(each for each in answers if isinstance(each, BaseException))
        return found


async def clock_of(link: Link) -> datetime:
    """Return the clock of a Redis."""
    return _moment(await answer(link.send("TIME")))


def _moment(time: list[bytes]) -> datetime:
    """Read the answer to TIME."""
    seconds, microseconds = time
    return wire.moment(int(seconds) * wire.SECOND_US + int(microseconds))

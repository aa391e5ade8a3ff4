"""Know the nodes that metering reads a journal of, and how far it is behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from authz.errors import LimiterUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from authz.limiter.limiter import Limiter
    from authz.store import Store

log = structlog.get_logger()

LAG_MS: Final = 60_000
"""Metering that is further behind can't vouch for a budget."""

REMEMBERED_S: Final = 1.0
READ_EVERY_S: Final = 5.0


class Nodes:
    """Knows which nodes' requests can be billed."""

    def __init__(self, store: Store, limiter: Limiter, *, now_s: Callable[[], float]) -> None:
        self._store = store
        self._limiter = limiter
        self._now_s = now_s
        self._known: frozenset[UUID] = frozenset()
        self.alive = 1
        self._vouched: dict[UUID, float] = {}

    async def knows(self, node: UUID) -> bool:
        """Return whether Postgres knows a node; ask it again about one that is not known yet."""
        if node not in self._known:
            self._known = await self._store.nodes()
        return node in self._known

    async def run(self) -> None:
        """Notice retired nodes until cancelled; while Postgres is away, keep what was read last."""
        while True:
            try:
                self._known = await self._store.nodes()
                self.alive = max(1, await self._count_alive())
            except (StoreUnavailable, LimiterUnavailable) as error:
                log.debug("authz.nodes_unread", error=str(error))
            await asyncio.sleep(READ_EVERY_S)

    async def _count_alive(self) -> int:
        """Count the nodes whose journal is read: they share what the backends take at a time."""
        lags = [await self._limiter.lag_ms(node) for node in self._known]
        return sum(lag is not None for lag in lags)

    async def can_settle(self, node: UUID) -> bool:
        """Return whether a known node's metering vouches and keeps up; ask Redis once a second."""
        if self._now_s() - self._vouched.get(node, float("-inf")) < REMEMBERED_S:
            return True
        lag_ms = await self._limiter.lag_ms(node)
        if lag_ms is None or lag_ms > LAG_MS:
            return False
        self._vouched[node] = self._now_s()
        return True

"""Know the nodes that metering reads a journal of, and how far it is behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from authz.errors import LimiterUnavailable, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from authz.limiter.limiter import Limiter
    from authz.store import Store

log = structlog.get_logger()

LAG_MS: Final = 60_000
"""Metering that is further behind can't vouch for a budget."""

BEGINS_S: Final = 10.0
"""How long after its first request a Caddy counts as new: its metering may just be taking it up."""

AWAITED_S: Final = 1.0
"""How long a request of a new Caddy waits for that: within the decision's deadline."""

AGAIN_S: Final = 0.1
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
        self._met: dict[UUID, float] = {}
        """When each node that could not be billed at once was met first."""

    async def knows(self, node: UUID) -> bool:
        """Return whether Postgres knows a node; ask it again about one that is not known yet."""
        return node in self._known or await self._soon(node, self._is_known)

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
        if not await self._soon(node, self._keeps_up):
            return False
        self._vouched[node] = self._now_s()
        return True

    async def _is_known(self, node: UUID) -> bool:
        self._known = await self._store.nodes()
        return node in self._known

    async def _keeps_up(self, node: UUID) -> bool:
        lag_ms = await self._limiter.lag_ms(node)
        return lag_ms is not None and lag_ms <= LAG_MS

    async def _soon(self, node: UUID, is_met: Callable[[UUID], Awaitable[bool]]) -> bool:
        """Return whether it is met; for a node that is new, whether it is within a moment."""
        if await is_met(node):
            return True
        now_s = self._now_s()
        give_up_s = min(now_s + AWAITED_S, self._met.setdefault(node, now_s) + BEGINS_S)
        while self._now_s() < give_up_s:
            await asyncio.sleep(AGAIN_S)
            if await is_met(node):
                return True
        return False

"""Rebuild after a loss of Redis: no request is admitted until the tenant's hash is rebuilt from Postgres.

The rule is DESIGN's "Loss of Redis": a mark in Redis; 2 s, by which every Grant of before has its
open line; an end of file of every node's journal read later than that; one snapshot of Postgres, sent
in batches; a last script that sets the epoch. All that is sent is written only while the mark stands.
What this process remembers of a loss is worth nothing.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from authz import supervise
from authz.errors import LimiterUnavailable, StoreUnavailable
from authz.limiter.limiter import MARK_AGE_S

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from authz.limiter.admission import Lost
    from authz.limiter.limiter import Limiter
    from authz.store import Store

log = structlog.get_logger()

RETRY_S: Final = 0.1
GIVE_UP_S: Final = 60
READINGS: Final = 2
"""Snapshots read at a time: a restart of Redis loses every tenant at once, requests need Postgres too."""


class Rebuilder:
    """Rebuilds lost tenants in the background, each at most once at a time."""

    def __init__(self, store: Store, limiter: Limiter) -> None:
        self._store = store
        self._limiter = limiter
        self.rebuilt = 0
        """Return the number of tenants this process has rebuilt."""
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._readings = asyncio.Semaphore(READINGS)

    @property
    def is_idle(self) -> bool:
        """Return whether no tenant is being rebuilt here."""
        return not self._running

    def notice(self, tenant: UUID) -> None:
        """Start to rebuild a tenant unless that is under way."""
        if tenant not in self._running:
            task = asyncio.create_task(supervise.once("rebuild", partial(self._rebuild, tenant)))
            self._running[tenant] = task
            task.add_done_callback(lambda _: self._running.pop(tenant))

    async def notice_all(self) -> None:
        """Look at every tenant, so that after a restart of Redis no client has to meet the loss.

        Without Postgres none is known: then each is looked at when it is asked for.
        """
        try:
            tenants = await self._store.tenants()
        except StoreUnavailable as error:
            log.warning("authz.store_unavailable", error=str(error))
            return
        for tenant in tenants:
            self.notice(tenant)

    async def close(self) -> None:
        """Stop; another process, or the next request, takes it up again."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _rebuild(self, tenant: UUID) -> None:
        try:
            async with asyncio.timeout(GIVE_UP_S):
                while (again_in_s := await self._step(tenant)) is not None:
                    await asyncio.sleep(again_in_s)
        except (LimiterUnavailable, StoreUnavailable, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            log.warning("authz.rebuild_failed", tenant=str(tenant), reason=reason)

    async def _step(self, tenant: UUID) -> float | None:
        """Do what can be done now; returns when to go on, or None: the tenant's hash is valid."""
        lost = await self._limiter.notice(tenant)
        if lost is None:
            return None
        safe_at = lost.marked_at + timedelta(seconds=MARK_AGE_S)
        if (too_early := safe_at - await self._limiter.now(tenant)) >= timedelta():
            return RETRY_S + too_early.total_seconds()
        async with self._readings:
            read_at = await self._limiter.now(tenant)  # before the snapshot: no reading is younger
            is_whole = await self._restore(tenant, lost, safe_at=safe_at, read_at=read_at)
        if not is_whole:
            return RETRY_S
        self.rebuilt += 1
        await self._limiter.forget_past(tenant)
        return None

    async def _restore(self, tenant: UUID, lost: Lost, *, safe_at: datetime, read_at: datetime) -> bool:
        """Send a snapshot of Postgres batch by batch, then the epoch; False if it must be read again."""
        batches = 0
        async with self._store.snapshot(tenant, lost=lost, safe_at=safe_at, read_at=read_at) as snapshot:
            if snapshot is None:
                return False
            async for batch in snapshot.batches():
                if not await self._limiter.restore(snapshot.reading, batch):
                    return False
                batches += 1
        is_whole = await self._limiter.end_loss(snapshot.reading)
        if is_whole:
            log.info("authz.tenant_rebuilt", tenant=str(tenant), batches=batches)
        return is_whole

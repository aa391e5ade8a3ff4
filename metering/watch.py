"""Looks at the books beside the loop: counts every few seconds, reconciles every minute.

It has connections of its own and no part in the bill: when it fails it begins again.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from authz.errors import LimiterUnavailable
from authz.limiter.limiter import Limiter
from authz.supervise import failure_of
from metering.books import Books
from metering.budgets import PERCENTS
from metering.reconcile import Reconciler
from metering.service import node_of

if TYPE_CHECKING:
    from metering.surroundings import Surroundings

log: Final = structlog.get_logger()

TALLY_EVERY_S: Final = 5.0
RECONCILE_EVERY_S: Final = 60.0
LEAST_PERCENT: Final = PERCENTS[0] - 0.5
"""Of a budget's tokens: as the parts are rounded."""
RESTS: Final = 19
"""Times as long as a round took until the next: Postgres is kept busy for a twentieth of the time."""


async def watch(around: Surroundings) -> NoReturn:
    """Look until cancelled; nothing that fails ends this, and meanwhile the figures are unknown."""
    around.metrics.watch_disk(around.journal.parent)
    limiter = Limiter(around.redis_url)
    await limiter.start()
    try:
        while True:
            error = await failure_of(_look(around, limiter))
            around.metrics.uncounted()
            around.metrics.duty_failed("books")
            log.warning("metering.books_unavailable", reason=str(error) or repr(error))
            await asyncio.sleep(TALLY_EVERY_S)
    finally:
        await limiter.close()


async def _look(around: Surroundings, limiter: Limiter) -> NoReturn:
    async with AsyncExitStack() as stack:
        books = await Books.connect(around.database_url)
        stack.push_async_callback(books.close)
        await books.stay_serial()
        reconciler = Reconciler(books, limiter, around.metrics, around.ticks, around.ledger_days)
        due = around.ticks()
        while True:
            around.metrics.counted(await books.tally(node_of(around.journal)))
            around.metrics.counted_budgets(await books.budgets_used(around.clock(), LEAST_PERCENT))
            if around.ticks() >= due:
                began = around.ticks()
                await _reconcile(reconciler, around)
                ended = around.ticks()
                due = max(began + RECONCILE_EVERY_S, ended + RESTS * (ended - began))
            around.metrics.duty_done("books")
            await asyncio.sleep(TALLY_EVERY_S)


async def _reconcile(reconciler: Reconciler, around: Surroundings) -> None:
    try:
        await reconciler.round(around.clock().date())
    except LimiterUnavailable as error:
        log.warning("metering.limiter_unavailable", reason=str(error))

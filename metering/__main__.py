"""`python -m metering`: follow the journal of one Caddy until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

import structlog
import uvloop

from authz import log, settings, supervise
from authz.errors import SettingsError, complaint
from metering import alerts
from metering.listener import listening
from metering.prompts import Spool
from metering.service import run
from metering.surroundings import Surroundings
from metering.watch import watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

logger: Final = structlog.get_logger()

COLLECTED_AT: Final = 50_000
"""New objects until Python looks for circles; by default fewer than a batch makes, which has none."""


def main() -> int:
    """Run the service; 2 if a setting is wrong."""
    log.configure()
    try:
        found = settings.load(os.environ)
    except SettingsError as error:
        sys.stderr.write(complaint(error))
        return 2
    around = Surroundings(
        found.journal,
        found.database_url,
        found.redis_url,
        found.ledger_days or None,
        Spool(found.prompts, found.prompt_tenant_bytes),
        found.address_days or None,
    )
    gc.freeze()  # what is loaded by now lives as long as the process
    gc.set_threshold(COLLECTED_AT)
    uvloop.run(_serve(around, found.metrics))
    return 0


async def _serve(around: Surroundings, metrics: Path) -> None:
    """Being cancelled anywhere is as harmless as being killed there."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with listening(metrics, around.metrics), _watching(around):
            await run(around)


@contextlib.asynccontextmanager
async def _watching(around: Surroundings) -> AsyncIterator[None]:
    """Watch meanwhile; whatever ends that, the bill goes on."""
    tasks = [asyncio.create_task(work) for work in (watch(around), alerts.follow(around))]
    for task in tasks:
        task.add_done_callback(_tell)
    try:
        yield
    finally:
        await supervise.end(tasks)


def _tell(watching: asyncio.Task[NoReturn]) -> None:
    if not watching.cancelled():
        logger.error("metering.watch_ended", reason=repr(watching.exception()))


if __name__ == "__main__":
    sys.exit(main())

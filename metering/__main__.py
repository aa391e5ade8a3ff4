"""`python -m metering`: follow the journal of one Caddy until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

import uvloop

from authz import log, settings
from authz.errors import SettingsError
from metering.listener import listening
from metering.service import Surroundings, run
from metering.watch import watch

if TYPE_CHECKING:
    from pathlib import Path


def main() -> int:
    """Run the service; 2 if a setting is wrong."""
    log.configure()
    try:
        found = settings.load(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    uvloop.run(_serve(Surroundings(found.journal, found.database_url, found.redis_url), found.metrics))
    return 0


async def _serve(around: Surroundings, metrics: Path) -> None:
    """Being cancelled anywhere is as harmless as being killed there."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with listening(metrics, around.metrics), asyncio.TaskGroup() as tasks:
            tasks.create_task(watch(around))
            tasks.create_task(run(around))


if __name__ == "__main__":
    sys.exit(main())

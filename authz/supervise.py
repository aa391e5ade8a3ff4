"""What runs beside the work may fail in any way: it is logged, counted and done again; the rest goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Work = Callable[[], Awaitable[object]]

log = structlog.get_logger()

RESTART_S: Final = 1.0
"""Before a task begins again: a failure that lasts fills no log."""

failures: Final[Counter[str]] = Counter()
"""How often each task of this process has failed in a way that it did not foresee."""


async def failure_of(work: Awaitable[object]) -> Exception | None:
    """Do some work; return what it raised, whatever that is, and None if it has ended well."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 (the only place: a fault of ours, too, must stop nothing else)
        return error
    return None


async def once(task: str, work: Work) -> None:
    """Do some work; a failure is logged and counted under the name of its task."""
    error = await failure_of(work())
    if error is not None:
        failures[task] += 1
        log.error("authz.task_failed", task=task, exc_info=error)


def begin(**works: Work) -> list[asyncio.Task[NoReturn]]:
    """Begin tasks that should never end."""
    return [asyncio.create_task(continually(task, work)) for task, work in works.items()]


async def continually(task: str, work: Work) -> NoReturn:
    """Do some work that should not end, and begin it again a moment after whatever has ended it."""
    failures[task] += 0  # what has never failed is 0: else its first failures would be no increase
    while True:
        await once(task, work)
        await asyncio.sleep(RESTART_S)


async def end(tasks: list[asyncio.Task[NoReturn]]) -> None:
    """End them, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

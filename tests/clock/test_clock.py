"""The clock of a test run: every process has the same, and waiting still takes as long as it should."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from authz.limiter.limiter import Limiter
from tests.clock import wall
from tests.clock.month_ends import next_month

NEAR = timedelta(seconds=30)
"""Far more than any answer takes, far less than any clock is moved."""


def now() -> datetime:
    """Return the wall clock of this process."""
    return datetime.now(UTC)


def test_this_process_has_the_clock_of_the_run(tmp_path: Path) -> None:
    """The wall clock is ahead of the kernel's, which dates files, by the lead of the run."""
    written = tmp_path / "written"
    written.touch()
    by_kernel = datetime.fromtimestamp(written.stat().st_mtime, UTC)
    assert abs(by_kernel + wall.lead() - now()) < NEAR


async def test_the_stores_have_the_clock_of_the_run(limiter: Limiter, database: str) -> None:
    """PostgreSQL and Redis run with an environment of their own, and have the clock all the same."""
    connection = await asyncpg.connect(database)
    assert abs(await connection.fetchval("SELECT clock_timestamp()") - now()) < NEAR
    await connection.close()
    assert abs(await limiter.now() - now()) < NEAR


def test_a_child_has_the_clock_of_the_run() -> None:
    """A process that is started with this environment has the same wall clock."""
    program = "import time; print(time.time())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert abs(datetime.fromtimestamp(float(done.stdout), UTC) - now()) < NEAR


WAITS: dict[str, Callable[[float], object]] = {
    "sleep": time.sleep,
    "event": lambda seconds: threading.Event().wait(seconds),
    "condition": lambda seconds: waited(threading.Condition(), seconds),
    "semaphore": lambda seconds: threading.Semaphore(0).acquire(timeout=seconds),
    "process semaphore": lambda seconds: multiprocessing.Semaphore(0).acquire(timeout=seconds),
}


def waited(condition: threading.Condition, seconds: float) -> None:
    """Wait for a condition that nothing ever meets."""
    with condition:
        condition.wait(seconds)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
def test_waiting_takes_as_long_as_it_should(wait: Callable[[float], object]) -> None:
    """A timeout is a span, however far the wall clock is ahead: it neither hangs nor ends at once."""
    begun = time.monotonic()
    wait(0.05)
    assert 0.05 <= time.monotonic() - begun < NEAR.total_seconds()


@pytest.mark.parametrize(
    ("moment", "month"),
    [
        (datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)),
        (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2028, 1, 31, 12, tzinfo=UTC), datetime(2028, 2, 1, tzinfo=UTC)),
    ],
)
def test_the_next_month(moment: datetime, month: datetime) -> None:
    """Months differ in length, and the twelfth is followed by the first of another year."""
    assert month == next_month(moment)

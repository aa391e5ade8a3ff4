"""A pytest plugin: every test begins just before the end of a month, each test in a later month."""

from __future__ import annotations

import os
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.clock import wall

WITHIN_MS: Final = 500
"""Preparing a test takes about as long, so that months end at any point of it."""


class MonthEnds:
    """Moves the clock before each test, and counts the tests during which a month ended."""

    def __init__(self) -> None:
        self._month = 0
        self._tests = 0
        self._crossed = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Move the clock before anything of the test exists; a test has the same time left in each run."""
        left = timedelta(milliseconds=zlib.crc32(item.nodeid.encode()) % WITHIN_MS)
        now = datetime.now(UTC)
        month_end = next_month(now + timedelta(seconds=1))  # so far ahead that no clock goes back
        wall.write(Path(os.environ[wall.FILE]), wall.lead() + (month_end - left - now))
        self._month = datetime.now(UTC).month

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self) -> None:
        """Count a test that began in one month and ended in another."""
        self._tests += 1
        self._crossed += self._month != datetime.now(UTC).month

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print how many tests ran across the end of a month."""
        terminalreporter.write_line(f"A month ended during {self._crossed} of {self._tests} tests.")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in which no month ended: it shows nothing."""
        if not self._crossed:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def next_month(moment: datetime) -> datetime:
    """Return the first moment of the month after this one, in UTC."""
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def pytest_configure(config: pytest.Config) -> None:
    """Take part in the run."""
    config.pluginmanager.register(MonthEnds())

"""A real browser, as a person has it: the Chromium of this machine."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from playwright.async_api import Browser, async_playwright

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS: Final = ("--disable-background-networking", "--disable-component-update")
"""Nothing of a test may leave this machine."""


@asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """Start a browser without a window, and end it."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail("This machine has no Chromium: `uv run just browser` installs one.")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        await browser.close()

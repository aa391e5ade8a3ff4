"""The wall clock of a test run; it is the machine's own unless tests.clock.shifted has started the run."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

FILE: Final = "SHIFTED_CLOCK"
"""Names the file with the lead of the clock in nanoseconds, as shift.c reads it."""

_LEAD_BYTES: Final = 8
_MICROSECOND_NS: Final = 1000


def environ() -> dict[str, str]:
    """Return what a child that is given an environment needs to have the same clock."""
    return {name: os.environ[name] for name in (FILE, "LD_PRELOAD")} if FILE in os.environ else {}


def lead() -> timedelta:
    """Return how far the wall clock of this run is ahead of the machine's."""
    if FILE not in os.environ:
        return timedelta()
    with Path(os.environ[FILE]).open("rb") as file:
        lead_ns = int.from_bytes(file.read(_LEAD_BYTES), sys.byteorder, signed=True)
    return timedelta(microseconds=lead_ns // _MICROSECOND_NS)


def write(file: Path, lead: timedelta) -> None:
    """Move the clock of every process that has this file."""
    lead_ns = lead // timedelta(microseconds=1) * _MICROSECOND_NS
    # In place: the file is mapped, and no process would see a new one.
    with file.open("r+b" if file.exists() else "wb") as opened:
        opened.write(lead_ns.to_bytes(_LEAD_BYTES, sys.byteorder, signed=True))

"""Run tests with another wall clock: `python -m tests.clock.shifted [PYTEST ARGUMENT...]`.

Without a file among the arguments these are the tests that depend on the time.

The clock is at least 400 days ahead, so that a fixed date beside it lies in the past, and a month ends
while each test runs. Go programs have their own system calls and keep the machine's clock, so tests that
start Caddy do not belong here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from authz.stack.build import cache_folder
from tests.clock import wall

AHEAD: Final = timedelta(days=400)

FOLDER: Final = Path(__file__).parents[1]
SOURCE: Final = Path(__file__).with_name("shift.c")
FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")

TESTS: Final = ("clock", "metering", "authz")
"""Folders of tests/ with tests that depend on the time and start no Go program."""

TIMELESS: Final = re.compile(
    r"test_(admin|cluster|cluster_loss|connection|cost|export|journal|limits_machine|limits_parallel"
    r"|lost_master|machine|metrics|models|queries|queue|refusals|role|routes|secrets|sentinel|sequences"
    r"|sources|tail)\.py"
)
"""Files without a date, or with every clock in the test's own hands; they would only take their time."""


def main(*arguments: str) -> int:
    """Run the tests under the moved clock; returns pytest's exit code."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        # PostgreSQL may run as a user of its own, who has to find the file as well.
        Path(folder).chmod(0o755)
        lead = Path(folder) / "lead"
        wall.write(lead, AHEAD)
        clock = {wall.FILE: str(lead), "LD_PRELOAD": str(library(os.environ))}
        named = [argument for argument in arguments if argument.startswith("tests/")]
        files = () if named else selected()
        argv = [sys.executable, "-m", "pytest", "-p", "tests.clock.month_ends", *arguments, *files]
        return subprocess.run(argv, env=os.environ | clock, check=False).returncode


def selected() -> list[str]:
    """Return the files with tests that depend on the time."""
    found = (path for folder in TESTS for path in sorted((FOLDER / folder).glob("test_*.py")))
    return [str(path) for path in found if not TIMELESS.fullmatch(path.name)]


def library(environ: Mapping[str, str]) -> Path:
    """Return the library, compiled once for each content of its source."""
    cache = cache_folder(environ)
    digest = sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:20]
    built = cache / f"clock-{digest}.so"
    if not built.exists():
        cache.mkdir(parents=True, exist_ok=True)
        attempt = built.with_suffix(f".{os.getpid()}")
        subprocess.run([*compiler(), *FLAGS, "-o", attempt, SOURCE, "-ldl", "-lpthread"], check=True)
        attempt.rename(built)
    return built


def compiler() -> list[str]:
    """Return the machine's C compiler, else the one of the ziglang wheel."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return [found] if found else [sys.executable, "-m", "ziglang", "cc"]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

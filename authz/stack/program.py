"""A program is everything that is needed to start one child process of the stack, as a value."""

from __future__ import annotations

import os
import subprocess
import sys
from enum import IntEnum
from signal import SIGTERM, Signals
from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from authz.stack import machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LAUNCH: Final = machine.__file__


class Layer(IntEnum):
    """Stores carry services, services carry the edge."""

    STORE = 0
    SERVICE = 1
    EDGE = 2


@frozen(kw_only=True)
class Program:
    """One child: what runs, where it writes, and the signal that makes it end in order.

    A higher layer uses the lower ones: it is stopped before them, and together with its like.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    layer: Layer
    environ: Mapping[str, str] = field(repr=False)
    stop_signal: Signals = SIGTERM
    grace_s: float = 10.0
    user: int | None = None

    def command(self) -> list[str]:
        """Return the argument vector that ends the program with this very process."""
        user = "-" if self.user is None else str(self.user)
        launcher = [sys.executable, "-I", "-S", _LAUNCH]
        return [*launcher, str(int(self.stop_signal)), str(os.getpid()), user, *self.argv]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the program; both of its outputs are appended to its log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environ,
                # A terminal's Ctrl-C is for the parent alone, which stops its children in order.
                start_new_session=True,
            )


def last_lines(log: Path, *, count: int = 3, window_bytes: int = 8192) -> list[str]:
    """Return the last lines of a log that are not empty; none when there is no log."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - window_bytes))
        text = file.read().decode(errors="replace")
    lines = [line for line in text.split("\n") if line.strip()]
    return lines[max(0, len(lines) - count) :]

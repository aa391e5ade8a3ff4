"""Use a program as its user does: with a home of its own, its configuration, and one command at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.clients.installing import Installed
from tests.clients.programs import Program, filled

ENDS_WITHIN_S: Final = 90
_DEAD_END: Final = "http://127.0.0.1:9"
"""A proxy that is none: no update, telemetry or price list is fetched during a test."""


@frozen
class Shown:
    """What a user sees of one command."""

    code: int
    output: str
    errors: str
    seconds: float

    @property
    def all(self) -> str:
        """Everything that is on the screen."""
        return f"{self.output}\n{self.errors}".strip()


@frozen
class Credential:
    """What a program identifies itself by, and the public handle of that."""

    key: str
    handle: str = ""


@frozen
class User:
    """Who asks an address with a key, by a program that is installed."""

    program: Program
    installed: Installed
    url: str
    credential: Credential

    def run(self, command: str) -> Shown:
        """Run one command in a new home, and return what it shows; the home and the address are masked."""
        with tempfile.TemporaryDirectory(prefix="nz") as name:
            home = Path(name)
            for relative, content in self.program.files.items():
                file = home / relative
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(self._filled(content))
            if self.installed.node_modules.exists():
                (home / "node_modules").symlink_to(self.installed.node_modules)
            argv = [self._filled(word) for word in self.program.argv(command)]
            began = time.monotonic()
            code, output, errors = _run(argv, home, self._environ(home))
            seconds = time.monotonic() - began
        output, errors = (text.replace(name, "HOME").replace(self.url, "GW") for text in (output, errors))
        return Shown(code, output, errors, seconds)

    def _filled(self, text: str) -> str:
        return filled(text, url=self.url, key=self.credential.key)

    def _environ(self, home: Path) -> dict[str, str]:
        settings = self.program.settings.items()
        return {
            "PATH": self.installed.path,
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "HTTP_PROXY": _DEAD_END,
            "HTTPS_PROXY": _DEAD_END,
            "NO_PROXY": "127.0.0.1,localhost",
            **{name: self._filled(value) for name, value in settings},
        }


def _run(argv: Sequence[str], home: Path, environ: dict[str, str]) -> tuple[int, str, str]:
    with subprocess.Popen(
        ["env", *argv],  # which finds the program on the user's PATH
        cwd=home,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
            errors += f"\nIt had not ended after {ENDS_WITHIN_S} s."
        return process.returncode, output, errors

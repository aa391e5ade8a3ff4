"""Whole stacks, driven through the command line only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from attrs import define, field

from authz.stack.discovery import free_port

TIMEOUT_S = 120.0


def inherited() -> dict[str, str]:
    """Return the environment of the tests, without what configures a gateway."""
    ours = ("GATEWAY_", "OLLAMA_", "DATABASE_URL", "REDIS_URL")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def until(is_met: Callable[[], object]) -> None:
    """Wait for what another process must bring about."""
    give_up = time.monotonic() + TIMEOUT_S
    while not is_met():
        assert time.monotonic() < give_up, "it never came about"
        time.sleep(0.02)


def answers(url: str) -> bool:
    """Return whether a server listens there."""
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


@define
class Stack:
    """A state folder and a port, and the commands on them."""

    state: Path
    port: int = field(factory=free_port)
    key: str | None = None
    within: tuple[str, ...] = ()
    """A command that runs another one, in surroundings of its own."""
    python: tuple[str, ...] = (sys.executable,)
    umask: int = -1
    """The umask of its commands; -1 keeps the tests' own."""

    def run(self, command: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command on this state folder."""
        argv = [*self.within, *self.python, "-m", "authz", command, *arguments, "--state", str(self.state)]
        env = {**inherited(), **environ}
        return subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=240, check=False, umask=self.umask
        )

    def up(self, *arguments: str, **environ: str) -> dict[str, Any]:
        """Bring it up, with the demo backend unless another is given; returns its facts."""
        backend = [] if "OLLAMA_BACKENDS" in environ else ["--demo"]
        port = ("--port", str(self.port))
        done = self.run("up", *port, "--detach", "--json", *backend, *arguments, **environ)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        self.key = answer["secret"] or self.key
        return answer

    def refusal(self, *arguments: str, **environ: str) -> str:
        """Try to bring it up in vain; returns the one line that says why."""
        done = self.run("up", "--port", str(self.port), "--detach", *arguments, **environ)
        assert (done.returncode, done.stdout) == (1, "")
        errors = [line for line in done.stderr.splitlines() if not line.startswith(("✓", "✗"))]
        assert 1 == len(errors)
        return errors[0]

    def status(self) -> dict[str, Any]:
        """Return the facts of `status --json`."""
        answer: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return answer

    def facts(self) -> dict[str, Any]:
        """Return the facts that the supervisor has recorded."""
        facts: dict[str, Any] = json.loads((self.state / "state.json").read_bytes())
        return facts

    def pid(self, name: str) -> int | None:
        """The process of a child that runs now."""
        pids: dict[str, int] = {child["name"]: child["pid"] for child in self.facts()["processes"]}
        return pids.get(name)

    def processes(self) -> list[int]:
        """Every process of this machine that was started for this state folder."""
        mine = os.fsencode(self.state)
        lines = ((path, _command_line(path)) for path in Path("/proc").glob("[0-9]*/cmdline"))
        return [int(path.parent.name) for path, line in lines if mine in line]

    def supervisor_log(self) -> str:
        """Return the reports of the detached supervisor."""
        return (self.state / "logs" / "supervisor.log").read_text()

    def chat(self) -> httpx.Response:
        """An answer of the demo backend, through the gateway."""
        return httpx.post(
            f"http://127.0.0.1:{self.port}/api/chat",
            headers={"Authorization": f"Bearer {self.key}"},
            json={
                "model": "demo",
                "messages": [{"role": "user", "content": "tokens=3"}],
                "options": {"num_predict": 3},
            },
            timeout=10,
        )

    def chat_status(self) -> int:
        """The status of such an answer, 0 while nothing listens."""
        try:
            return self.chat().status_code
        except httpx.TransportError:
            return 0


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""

"""The load generator and the mock backend: one Go program, built when it is needed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import cattrs
from attrs import asdict, frozen

from authz.errors import CommandError
from authz.stack.build import go_environ
from authz.stack.embedded import wheel_folder

SOURCE: Final = Path(__file__).with_name("load")
SPARE_FILES: Final = 512
"""Descriptors of a process beside those of its streams."""


@frozen
class Workload:
    """What clients ask for; the durations are Go's, such as 20ms."""

    clients: int
    tokens: int = 16
    length: str = "0s"
    each: int = 0
    every: str = "0s"
    gap: str = "0s"
    ramp: str = "0s"
    stream: bool = False
    prompt: int = 0
    """Bytes of text before the question."""


@frozen
class Result:
    """What came of it, times in ms."""

    whole: int
    failed: int
    failure: str
    tokens: int
    seconds: float
    p50_ms: float | None
    ttft_ms: float | None
    delay_ms: float | None


@frozen
class Target:
    """Where to send requests, and as whom."""

    url: str
    key: str = "none"
    path: str = "/api/chat"
    model: str = "bench"


@frozen
class Load:
    """The built program."""

    program: Path

    @classmethod
    def build(cls, folder: Path) -> Load:
        """Build the program into a folder."""
        program, go = folder / "load", wheel_folder("go") / "bin" / "go"
        environ = {**go_environ(os.environ), "GOFLAGS": "-mod=readonly -buildvcs=false -trimpath"}
        subprocess.run([str(go), "build", "-o", str(program), "."], cwd=SOURCE, env=environ, check=True)
        return cls(program)

    @contextmanager
    def backend(self, port: int = 0, *, models: int = 1) -> Iterator[str]:
        """Run the mock backend; gives its URL. Raises CommandError if the port can't be had."""
        argv = [str(self.program), "backend", "-addr", f"127.0.0.1:{port}", f"-models={models}"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                if not (address := (process.stdout.readline() if process.stdout else "").strip()):
                    reason = (process.stderr.read() if process.stderr else "").strip()
                    message = (
                        f"Port {port} can't be had ({reason.rpartition(': ')[2]}): "
                        "stop what listens there, or name another port."
                    )
                    raise CommandError(message)
                yield f"http://{address}"
            finally:
                process.terminate()

    def begin(self, target: Target, workload: Workload) -> subprocess.Popen[str]:
        """Begin to ask; `finished` returns what came of it."""
        asked = asdict(target) | asdict(workload)
        argv = [f"-{name}={value}" for name, value in asked.items()]
        return subprocess.Popen([str(self.program), "run", *argv], stdout=subprocess.PIPE, text=True)

    def run(self, target: Target, workload: Workload) -> Result:
        """Ask, and return what came of it."""
        return finished(self.begin(target, workload))


def finished(process: subprocess.Popen[str]) -> Result:
    """Wait for a run, and return what came of it."""
    with process:
        answer = process.stdout.read() if process.stdout else ""
    return cattrs.structure(json.loads(answer), Result)


def check_mock(load: Load, name: str, target: Target) -> None:
    """Raise CommandError if the mock isn't what answers behind a gateway: real models are never measured."""
    result = load.run(target, Workload(clients=1, each=1, tokens=3))
    if result.failed:
        message = (
            f"{name} at {target.url} does not pass on the answers of the benchmark's own backend "
            f"({result.failure}): point it there, and name a key that may use its model."
        )
        raise CommandError(message)


def check_files(streams: int) -> None:
    """Raise CommandError if a process may not open the files that so many streams take at a gateway."""
    needed = 2 * streams + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        message = (
            f"{streams:,} streams at once take {needed:,} open files, and a process may have {hard:,} here: "
            f"raise that limit (ulimit -n), or ask for fewer with --crowd."
        )
        raise CommandError(message)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))

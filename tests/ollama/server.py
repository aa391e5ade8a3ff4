"""Run the real Ollama on a free port, and read what its runner really generated."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
import msgspec
import pytest
from attrs import evolve, frozen

from authz.stack.discovery import free_port
from tests.ollama.build import ollama_folder, server_binary
from tests.ollama.models import REGISTRY, write_models
from tests.up.stacks import answers, until

_PASSED: Final = ("PATH", "TZ", "LANG")
_NO_PROXY: Final = "127.0.0.1,localhost"
_DEAD_END: Final = "http://127.0.0.1:9"
"""A proxy that is none: nothing of a test may leave this machine."""
_WITHIN_S: Final = 20
_ENDS_WITHIN_S: Final = 20


class Truth(msgspec.Struct, frozen=True):
    """The runner's account of one request; the input counts its cached part too."""

    tag: str
    route: str
    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    end: str
    """`stop`, `limit`, `cancel` (the client disconnected), `too-long`, or a fault; empty while it runs."""


@frozen
class Ollama:
    """A running Ollama."""

    url: str
    folder: Path
    group: int = 0
    """The process group of the server and its runners."""

    def kill(self) -> None:
        """End it at once, as a power cut does, and wait until the server has ended."""
        os.killpg(self.group, signal.SIGKILL)
        os.waitid(os.P_PID, self.group, os.WEXITED | os.WNOWAIT)

    def started(self, tag: str) -> int:
        """Return how many lines the runner has written of a tag so far."""
        return len(self._read(tag))

    async def truths(self, tag: str, *, ended: int = 1) -> list[Truth]:
        """Return the requests of a tag that have ended, once there are so many."""
        lines = await self._lines(tag, lambda lines: sum(bool(line.end) for line in lines) >= ended)
        return [line for line in lines if line.end]

    async def last(self, tag: str, *, lines: int = 1) -> Truth:
        """Return the last line of a tag, once there are so many: one at its start, one for each event."""
        return (await self._lines(tag, lambda found: len(found) >= lines))[-1]

    async def _lines(self, tag: str, is_enough: Callable[[list[Truth]], bool]) -> list[Truth]:
        give_up = time.monotonic() + _WITHIN_S
        while not is_enough(found := self._read(tag)):
            if time.monotonic() > give_up:
                pytest.fail(f"of {tag} the runner wrote only {found}")
            await asyncio.sleep(0.005)
        return found

    def ended(self) -> list[Truth]:
        """Return all requests that have ended so far."""
        return [truth for truth in self._lines_now() if truth.end]

    def _read(self, tag: str) -> list[Truth]:
        return [truth for truth in self._lines_now() if truth.tag == tag]

    def _lines_now(self) -> Iterator[Truth]:
        path = self.folder / "truth.jsonl"
        *lines, _unfinished = (path.read_bytes() if path.exists() else b"").split(b"\n")
        return (msgspec.json.decode(line, type=Truth) for line in lines)

    def file_of(self, model: str) -> str:
        """Return the name of a model's file, which is its digest."""
        manifest = self.folder.joinpath("models", "manifests", *REGISTRY, model, "latest")
        digest: str = msgspec.json.decode(manifest.read_bytes())["layers"][0]["digest"]
        return digest.replace(":", "-")

    @contextmanager
    def gate(self, name: str) -> Iterator[Gate]:
        """Make a gate for the prompt's knob `hold`; it is closed until it is opened."""
        path = self.folder / "gates" / name
        os.mkfifo(path)
        # Open for reading too: then writing never waits for a runner.
        with os.fdopen(os.open(path, os.O_RDWR), "wb", buffering=0) as pipe:
            yield Gate(pipe.fileno())
        path.unlink()


@frozen
class Gate:
    """Withholds the events of an answer, and the end of it."""

    _pipe: int

    def release(self, events: int) -> None:
        """Let so many more events pass."""
        os.write(self._pipe, bytes(events))


@contextmanager
def running_ollama(*, parallel: int, context_tokens: int = 4096) -> Iterator[Ollama]:
    """Build what the cache lacks, and run an Ollama of its own with the toy models.

    Each of them answers so many requests at once, with a context of so many tokens.
    """
    binary = server_binary(ollama_folder(os.environ))
    with tempfile.TemporaryDirectory(prefix="nz") as name:
        ollama = Ollama(f"http://127.0.0.1:{free_port()}", Path(name))
        (ollama.folder / "gates").mkdir()
        write_models(ollama.folder / "models")
        with (ollama.folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [str(binary), "serve"],
                env={
                    **_environ(ollama),
                    "OLLAMA_CONTEXT_LENGTH": str(context_tokens),
                    "OLLAMA_NUM_PARALLEL": str(parallel),
                },
                cwd=ollama.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            until(lambda: _serves(process, ollama))
            yield evolve(ollama, group=process.pid)
        finally:
            _end(process)


def _serves(process: subprocess.Popen[bytes], ollama: Ollama) -> bool:
    if process.poll() is not None:
        pytest.fail((ollama.folder / "server.log").read_text())
    return answers(f"{ollama.url}/api/version")


def _environ(ollama: Ollama) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name in _PASSED},
        "GIN_MODE": "release",
        "HOME": str(ollama.folder),
        "HTTP_PROXY": _DEAD_END,
        "HTTPS_PROXY": _DEAD_END,
        "NO_PROXY": _NO_PROXY,
        "OLLAMA_HOST": str(httpx.URL(ollama.url).netloc.decode()),
        "OLLAMA_KEEP_ALIVE": "30m",
        "OLLAMA_MAX_LOADED_MODELS": "6",
        "OLLAMA_MODELS": str(ollama.folder / "models"),
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_NO_CLOUD": "1",
        "RUNNER_GATES": str(ollama.folder / "gates"),
        "RUNNER_LEDGER": str(ollama.folder / "truth.jsonl"),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and the runners that it started: they are a process group of their own."""
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN_S)
    finally:
        with suppress(ProcessLookupError):  # where none is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

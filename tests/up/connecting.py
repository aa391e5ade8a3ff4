"""`neuronetz-gateway connect`, run as its user runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from tests.up.stacks import inherited

ENDS_WITHIN_S = 20


@frozen
class Connected:
    """A running proxy: its address for OLLAMA_HOST, its process, and the line that it began with."""

    host: str
    process: subprocess.Popen[str]
    line: str


def connect(
    *arguments: str, key: str = "", port: str = "0", **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the command where it must fail."""
    return subprocess.run(
        [sys.executable, "-m", "authz", "connect", "--port", port, *arguments],
        env={**inherited(), "GATEWAY_KEY": key, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def connected(url: str, key: str, *arguments: str, folder: Path, **environ: str) -> Iterator[Connected]:
    """Serve a gateway on a free port of the loopback, with the key in a file of the folder."""
    file = folder / "key"
    file.write_text(f"{key}\n")
    file.chmod(0o600)
    process = subprocess.Popen(
        [sys.executable, "-m", "authz", "connect", url, "--key-file", str(file), "--port", "0", *arguments],
        env={**inherited(), **environ},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        said = re.search(r"http://127\.0\.0\.1:[0-9]+", line)
        assert said, process.stderr.read()
        assert key not in line
        try:
            yield Connected(said[0], process, line)
        finally:
            process.kill()

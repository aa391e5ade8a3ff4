"""Run the gateway's own rule beside the reference."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from authz.stack.build import SOURCE, go_environ
from authz.stack.embedded import wheel_folder

Bounds = Callable[[dict[str, Any], list[str]], list[int]]


@pytest.fixture(scope="session")
def bounds(tmp_path_factory: pytest.TempPathFactory) -> Bounds:
    """A function that gives the gateway's bounds of texts by a vocabulary."""
    folder = tmp_path_factory.mktemp("bound")
    binary = folder / "wordbound"
    build = [str(wheel_folder("go") / "bin" / "go"), "build", "-o", str(binary)]
    subprocess.run(
        [*build, "./internal/wordtable/wordbound"], cwd=SOURCE, env=go_environ(os.environ), check=True
    )

    def run(info: dict[str, Any], texts: list[str]) -> list[int]:
        show: Path = folder / "show.json"
        show.write_bytes(msgspec.json.encode({"model_info": info}))
        lines = b"".join(msgspec.json.encode(text) + b"\n" for text in texts)
        done = subprocess.run([str(binary), str(show)], input=lines, capture_output=True, check=True)
        assert b"no words" not in done.stderr
        return [int(line) for line in done.stdout.split()]

    return run

"""Run the gateway's own rule beside the reference."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.bound.build import built

Bounds = Callable[[dict[str, Any], list[str]], list[int]]


@pytest.fixture
def bounds(tmp_path: Path) -> Bounds:
    """A function that gives the gateway's bounds of texts by a vocabulary."""

    def run(info: dict[str, Any], texts: list[str]) -> list[int]:
        show = tmp_path / "show.json"
        show.write_bytes(msgspec.json.encode({"model_info": info}))
        lines = b"".join(msgspec.json.encode(text) + b"\n" for text in texts)
        done = subprocess.run([str(built()), str(show)], input=lines, capture_output=True, check=True)
        assert b"no words" not in done.stderr
        return [int(line) for line in done.stdout.split()]

    return run

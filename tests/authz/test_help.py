"""The help of the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from cyclopts import App

from authz.__main__ import run
from authz.admin import app

MARGIN = "│ "


def commands(parent: App, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the path of the program, of each group and of each command."""
    yield path
    for name, child in parent.resolved_commands().items():
        if not name.startswith("-"):
            yield from commands(child, *path, name)


@pytest.mark.parametrize("path", list(commands(app)), ids=" ".join)
def test_everything_in_a_help_has_a_line(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command, every group and every option is explained where it is listed."""
    monkeypatch.setenv("COLUMNS", "160")
    assert 0 == run([*path, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].strip(), "it does not explain itself"
    entries = [line.strip("│ ") for line in lines if line.startswith(MARGIN) and line[2] != " "]
    assert entries
    assert [] == [entry for entry in entries if "  " not in entry]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["streams"]], ids=" ".join)
def test_the_first_call_of_a_process_explains_all(arguments: list[str]) -> None:
    """The overview names what each command does, though no command was loaded before."""
    command = [sys.executable, "-m", "authz", *arguments]
    environ = {**os.environ, "COLUMNS": "160"}
    printed = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
    listed = [line.strip("│ ") for line in printed.splitlines() if line.startswith(MARGIN)]
    assert listed
    assert [] == [line for line in listed if "  " not in line]

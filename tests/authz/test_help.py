"""The help of the command line."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Literal

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


def function(path: tuple[str, ...]) -> Callable[..., object] | None:
    """The function of a command; none of the program, and of a group that lists others."""
    found = app
    for name in path:
        found = found[name]
    return found.default_command


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


@pytest.mark.parametrize("path", [path for path in commands(app) if function(path)], ids=" ".join)
def test_each_command_has_an_example_that_it_takes(path: tuple[str, ...]) -> None:
    """The help of each command has one example of it, which the command line takes as it stands."""
    command = function(path)
    assert command is not None
    (example,) = re.findall(r"^ *Example: neuronetz-gateway (.+)$", command.__doc__ or "", re.MULTILINE)
    words = shlex.split(example)
    assert [*path] == words[: len(path)]
    parsed, _, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command is parsed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_every_command(shell: Literal["bash", "zsh", "fish"]) -> None:
    """What --install-completion writes knows each command of each group, though none was loaded before."""
    script = app.generate_completion(shell=shell)
    names = {path[-1] for path in commands(app) if path}
    assert set() == {name for name in names if not re.search(rf"(?<![\w-]){name}(?![\w-])", script)}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["streams"]], ids=" ".join)
def test_the_first_call_of_a_process_explains_all(arguments: list[str]) -> None:
    """The overview names what each command does, though no command was loaded before."""
    command = [sys.executable, "-m", "authz", *arguments]
    environ = {**os.environ, "COLUMNS": "160"}
    printed = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
    listed = [line.strip("│ ") for line in printed.splitlines() if line.startswith(MARGIN)]
    assert listed
    assert [] == [line for line in listed if "  " not in line]

"""Every command of README.md runs: here, or as what CI itself begins with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.up.stacks import Stack, inherited

pytestmark = pytest.mark.timeout(300)

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS: Final = [
    command
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)
]
UP: Final = "pip install uv && uv run just up"
TEST: Final = "pip install uv && uv run just test"
HERE: Final = "uv run neuronetz-gateway "


def shell(stack: Stack, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the README as its reader does, but on this stack, in the environment of the tests."""
    own = command.replace("127.0.0.1:8080", f"127.0.0.1:{stack.port}").replace("llama3.2", "demo")
    own = own.replace("nz_...", stack.key or "").removeprefix("uv run ")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {**inherited(), "PATH": path, "GATEWAY_STATE": str(stack.state)}
    return subprocess.run(
        ["bash", "-c", own], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def started() -> Iterator[Stack]:
    """A stack brought up by the README's command; the test adds a port, and that it goes on alone."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        stack = Stack(Path(folder) / "s")
        done = shell(stack, f"{UP.partition(' && ')[2]} --detach --json --demo --port {stack.port}")
        assert 0 == done.returncode, done.stderr
        stack.key = json.loads(done.stdout)["secret"]
        yield stack
        stack.run("down")


def test_ci_begins_as_a_newcomer_does() -> None:
    """The two commands that install uv are those of .ci/run, which runs them on a fresh machine."""
    lanes = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^lane uv pip install (--quiet )?uv$", lanes, re.MULTILINE)
    assert re.search(r"^lane test uv run just test$", lanes, re.MULTILINE)
    assert {UP, TEST} == {command for command in COMMANDS if command.startswith("pip ")}


@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in {UP, TEST}])
def test_every_command_runs(started: Stack, command: str) -> None:
    """Each other command succeeds on a stack that `up` has started, in the order of the README."""
    done = shell(started, command)
    output = done.stdout + done.stderr
    assert 0 == done.returncode, output
    assert not re.search(r"^error: |Traceback", output, re.MULTILINE)
    assert command.startswith(("curl ", HERE))
    if command.startswith("curl "):
        assert "data: [DONE]" in done.stdout


def test_the_snippet_runs(started: Stack) -> None:
    """The Python of the README prints an answer."""
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    own = snippet.replace("127.0.0.1:8080", f"127.0.0.1:{started.port}").replace("llama3.2", "demo")
    own = own.replace("nz_...", started.key or "")
    done = subprocess.run([sys.executable, "-c", own], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    assert done.stdout.strip()

"""`up --reload`: whoever edits authz or metering sees the new code at work, and clients see nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authz.stack.checklist import News
from authz.stack.facts import Facts
from authz.stack.folder import make_folder
from authz.stack.program import Layer, Program
from authz.stack.streams import streams
from authz.stack.supervisor import MAX_DEATHS, Supervisor, myself
from tests.backend.app import backend
from tests.backend.serving import served
from tests.up.stacks import Stack, until

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
SERVICES = ("authz-0", "authz-1", "metering")
LONG = {"model": "demo", "messages": [{"role": "user", "content": "tokens=5000 delay_ms=20"}]}


class Over(Exception):
    """The supervisor has done what the test wanted to see."""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the sources that a test may edit."""
    for package in ("authz", "metering", "sql"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "caddy").symlink_to(ROOT / "caddy")
    return tmp_path


def _streamed_tokens(control: str) -> list[int]:
    """Ask Caddy how many tokens each running stream has produced."""
    return [stream.output_tokens for stream in asyncio.run(streams(Path(control)))]


@pytest.fixture
def slow_url() -> Iterator[str]:
    """The URL of a backend that answers for as long as the prompt says."""
    with served(backend("demo")) as url:
        yield url


def test_changed_code_answers_while_a_stream_goes_on(stack: Stack, sources: Path, slow_url: str) -> None:
    """The services are replaced one by one: every request is answered, and no stream is cut."""
    stack.within = ("env", f"PYTHONPATH={sources}", "PYTHONSAFEPATH=1")
    backends = json.dumps([{"name": "slow", "url": slow_url}])
    control = stack.up("--reload", OLLAMA_BACKENDS=backends)["control"]
    before = {name: stack.pid(name) for name in (*SERVICES, "caddy")}
    refusals = sources / "authz" / "decision" / "refusals.py"
    headers = {"Authorization": f"Bearer {stack.key}"}
    url, answers = f"http://127.0.0.1:{stack.port}/api/chat", list[httpx.Response]()

    def is_edited() -> bool:
        answers.append(httpx.post(url, headers=headers, json={"model": "unknown"}, timeout=10))
        return "edited" in answers[-1].text

    with httpx.stream("POST", url, headers=headers, json=LONG, timeout=60) as stream:
        chunks = stream.iter_raw()
        next(chunks)

        refusals.write_text(refusals.read_text().replace("'{model}' not found", "'{model}' edited"))

        until(is_edited)
        until(lambda: is_edited() and not {stack.pid(name) for name in SERVICES} & {None, *before.values()})
        tokens = _streamed_tokens(control)
        until(lambda: _streamed_tokens(control) > tokens)
    assert 1 == len(tokens)
    assert {404} == {answer.status_code for answer in answers}
    assert before["caddy"] == stack.pid("caddy")


def test_code_that_cannot_be_imported_replaces_nothing(stack: Stack, sources: Path) -> None:
    """A half-written file leaves the old code at work, and the reason is printed."""
    stack.within = ("env", f"PYTHONPATH={sources}", "PYTHONSAFEPATH=1")
    stack.up("--reload")
    before = {name: stack.pid(name) for name in SERVICES}

    (sources / "authz" / "app.py").write_text("def create(:\n")

    until(lambda: "reload  the old code goes on: SyntaxError" in stack.supervisor_log())
    assert 200 == stack.chat().status_code
    assert before == {name: stack.pid(name) for name in SERVICES}


async def test_a_replaced_child_has_not_died(tmp_path: Path) -> None:
    """However often a child is replaced, it never counts as one that keeps dying."""
    news: list[News] = []
    folder = make_folder(tmp_path / "s")
    argv = (sys.executable, "-c", "import time; time.sleep(600)")
    sleeper = Program(name="sleeper", argv=argv, log=folder.logs / "s.log", layer=Layer.SERVICE, environ={})
    with pytest.RaisesGroup(Over):
        async with asyncio.TaskGroup() as tasks:
            supervisor = Supervisor(folder, Facts(url="", supervisor=myself()), news.append, tasks)
            await supervisor.start(sleeper)
            for _ in range(MAX_DEATHS + 1):
                replaced = supervisor.facts.processes
                await supervisor.replace("sleeper")
                while supervisor.facts.processes in {(), replaced}:
                    await asyncio.sleep(0.01)
            raise Over
    await supervisor.stop()
    assert ["replaced"] * (MAX_DEATHS + 1) == [item.text for item in news]

"""One whole gateway a run for every test that needs one, in front of a demo backend that keeps a tally."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

from authz.demo.app import create
from authz.demo.backend import named
from tests.serving import served
from tests.up.stacks import Stack

MODELS = ("demo", "demo2", "demo-think", "demo-tpl", "demo-embed")


@frozen
class Gateway:
    """A running gateway: where it is, a key of it, what is behind it and where it bills."""

    url: str
    key: str
    demo_url: str
    database_url: str
    stack: Stack

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an admin command on this gateway."""
        return self.stack.run(command, *arguments)

    def create_key(self, name: str, *arguments: str) -> str:
        """Create a key of the first tenant."""
        created = self.run("create-key", "--tenant", "demo", "--name", name, "--json", *arguments)
        key: str = json.loads(created.stdout)["key"]
        return key


@pytest.fixture(scope="session")
def demo_url() -> Iterator[str]:
    """The URL of a demo backend that answers as fast as it can."""
    with served(create([named(name) for name in MODELS], greeting="", pace_ms=0)) as url:
        yield url


@pytest.fixture(scope="session")
def gateway(demo_url: str) -> Iterator[Gateway]:
    """A gateway in front of that backend."""
    with running(demo_url, OLLAMA_URL=demo_url) as started:
        yield started


@contextmanager
def running(demo_url: str, **environ: str) -> Iterator[Gateway]:
    """Run a gateway with such settings."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        stack = Stack(Path(folder) / "s")
        done = stack.run("up", "--port", str(stack.port), "--detach", "--json", **environ)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        stores = json.loads((stack.state / "stores.json").read_bytes())
        yield Gateway(said["url"], said["key"], demo_url, stores["database_url"], stack)
        stack.run("down")

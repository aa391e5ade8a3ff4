"""One whole gateway a run for every test that needs one, in front of a backend that keeps a tally."""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from attrs import frozen

from authz import settings as settings_
from authz.accounts.keys import create_key
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.limiter.limiter import Limiter
from authz.store import ADMIN_ROLE, Store
from authz.types import Limits
from tests.backend.app import backend
from tests.backend.serving import served
from tests.up.stacks import Stack, until

NewKey = Callable[..., Awaitable[str]]
_numbers = itertools.count()

MODELS = ("demo", "demo2", "demo-embed")


@frozen
class Gateway:
    """A running gateway: where it is, a key of it, what is behind it and where it bills."""

    url: str
    key: str
    backend_url: str
    database_url: str
    stack: Stack

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an admin command on this gateway."""
        return self.stack.run(command, *arguments)

    def create_key(self, name: str, *arguments: str) -> str:
        """Create a key of the first tenant."""
        created = self.run("create-key", "--tenant", "demo", "--name", name, "--json", *arguments)
        return secret_of(json.loads(created.stdout))


def secret_of(said: dict[str, str]) -> str:
    """Return the new key of what `up` or `create-key` says; another checkout may still call it `key`."""
    return said.get("secret") or said["key"]


@pytest.fixture(scope="session")
def backend_url() -> Iterator[str]:
    """The URL of a backend that answers as fast as it can."""
    with served(backend(*MODELS)) as url:
        yield url


@pytest.fixture(scope="session")
def gateway(backend_url: str) -> Iterator[Gateway]:
    """A gateway in front of that backend."""
    with running(backend_url, OLLAMA_URL=backend_url) as started:
        yield started


@contextmanager
def running(backend_url: str, checkout: Path | None = None, /, **environ: str) -> Iterator[Gateway]:
    """Run a gateway with such settings: this one, or that of another checkout."""
    with tempfile.TemporaryDirectory(prefix="nz") as folder:
        stack = Stack(Path(folder) / "s")
        if checkout is not None:
            stack.within, stack.python = ("env", "-C", str(checkout)), (str(checkout / ".venv/bin/python"),)
        try:
            done = stack.run("up", "--port", str(stack.port), "--detach", "--json", **environ)
            assert done.returncode == 0, done.stderr
            said = json.loads(done.stdout)
            until(lambda: _knows_models(stack.state / "tables"))
            stores = json.loads((stack.state / "stores.json").read_bytes())
            yield Gateway(said["url"], secret_of(said), backend_url, stores["database_url"], stack)
        finally:
            stack.run("down")


def _knows_models(tables: Path) -> bool:
    """Return whether Caddy has a table of each model: before, prompts cost more."""
    index = tables / "index.json"
    if not index.exists():
        return False
    models: dict[str, list[str]] = json.loads(index.read_bytes())["models"]
    return bool(models) and all(
        (tables / f"{digest}.table").exists() for digests in models.values() for digest in digests
    )


@asynccontextmanager
async def keymaker(gateway: Gateway) -> AsyncIterator[NewKey]:
    """Creates keys of tenants of their own, with limits on either."""
    settings = settings_.load({}, state=gateway.stack.state)
    store = Store(settings.database_url, role=ADMIN_ROLE)
    limiter = await Limiter.connect(settings.redis_url)
    session = Session(settings, store, limiter, "tester")

    async def make(*, tenant: Limits = Limits(), key: Limits = Limits(), ssh_key: str | None = None) -> str:
        name = f"made-{next(_numbers)}"
        await create_tenant(session, name, limits=tenant)
        return (await create_key(session, tenant=name, name="only", limits=key, ssh_key=ssh_key)).key

    yield make
    await limiter.close()
    await store.close()

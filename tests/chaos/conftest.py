"""A gateway of its own for whoever breaks things, in front of a demo backend of its own."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from authz import settings as settings_
from authz.admin.keys import create_key
from authz.admin.session import Session
from authz.admin.tenants import create_tenant
from authz.demo.app import create
from authz.demo.backend import named
from authz.limits import Limiter
from authz.store import Store
from authz.types import Limits
from tests.gateway import Gateway
from tests.serving import served
from tests.up.stacks import Stack

NewKey = Callable[..., Awaitable[str]]
_numbers = itertools.count()


@pytest.fixture(scope="module")
def broken() -> Iterator[Gateway]:
    """A gateway whose processes may be killed: the supervisor brings them back."""
    with (
        served(create([named("demo")], greeting="", pace_ms=0)) as demo_url,
        tempfile.TemporaryDirectory(prefix="nz") as folder,
    ):
        stack = Stack(Path(folder) / "s")
        done = stack.run("up", "--port", str(stack.port), "--detach", "--json", OLLAMA_URL=demo_url)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        stores = json.loads((stack.state / "stores.json").read_bytes())
        yield Gateway(said["url"], said["key"], demo_url, stores["database_url"], stack)
        stack.run("down")


@pytest.fixture
async def new_key(broken: Gateway) -> AsyncIterator[NewKey]:
    """Creates a key of a tenant of its own, with limits on either."""
    settings = settings_.load({}, state=broken.stack.state)
    store, limiter = Store(settings.database_url), await Limiter.connect(settings.redis_url)
    session = Session(settings, store, limiter, "tester")

    async def make(*, tenant: Limits = Limits(), key: Limits = Limits()) -> str:
        name = f"chaos-{next(_numbers)}"
        await create_tenant(session, name, limits=tenant)
        return (await create_key(session, tenant=name, name="only", limits=key)).key

    yield make
    await limiter.close()
    await store.close()


@pytest.fixture
async def ledger(broken: Gateway) -> AsyncIterator[asyncpg.Connection]:
    """The database that bills."""
    connection = await asyncpg.connect(broken.database_url)
    yield connection
    await connection.close()

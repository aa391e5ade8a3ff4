"""A tenant with a key in real stores."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
import uvicorn
from attrs import evolve

from authz import settings as settings_
from authz.accounts.keys import CreatedKey, create_key
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.app import build
from authz.backends.backend import Backend
from authz.limiter.limiter import Limiter
from authz.protocol import Protocol
from authz.settings import Settings
from authz.store import ADMIN_ROLE, Store
from authz.types import Identity
from metering.ledger_store import LedgerStore as Metering
from tests.authz.asking import BOOT, NODE, Guard
from tests.authz.billing import START, Book
from tests.authz.billing import served as row_of
from tests.backend.app import backend
from tests.backend.serving import served


@pytest.fixture
def settings(database: str, redis_url: str, tmp_path: Path) -> Settings:
    """Settings of a process on these stores."""
    pepper = tmp_path / "pepper"
    pepper.write_text("ab" * 32)
    pepper.chmod(0o400)
    environ = {
        "DATABASE_URL": database,
        "REDIS_URL": redis_url,
        "GATEWAY_STATE": str(tmp_path),
        "OLLAMA_URL": "http://127.0.0.1:9",
    }
    return settings_.load(environ)


@pytest.fixture
async def session(settings: Settings, limiter: Limiter) -> AsyncIterator[Session]:
    """What a command holds open."""
    store = Store(settings.database_url, role=ADMIN_ROLE)
    yield Session(settings, store, limiter, "tester")
    await store.close()


@pytest.fixture
async def key(session: Session) -> CreatedKey:
    """A key of the tenant acme."""
    await create_tenant(session, "acme")
    return await create_key(session, tenant="acme", name="first")


@pytest.fixture(scope="session")
def demo_url() -> Iterator[str]:
    """The URL of a demo backend with the models demo and demo-embed."""
    with served(backend("demo", "demo-embed")) as url:
        yield url


@pytest.fixture
async def authz_url(
    settings: Settings, demo_url: str, owner_of_tables: asyncpg.Connection
) -> AsyncIterator[str]:
    """The URL of a served authz whose one backend is the demo, and whose one node metering knows."""
    query = "INSERT INTO nodes (node, boot, eof_at) VALUES ($1, $2, now())"
    await owner_of_tables.execute(query, NODE, BOOT)
    listener = socket.create_server(("127.0.0.1", 0))
    backends = (Backend("default", demo_url),)
    settings.snippets.mkdir()
    (settings.snippets / "default.caddy").touch()
    # The clock of wrong keys stands still: on a slow machine a source would be forgotten between two.
    app = build(evolve(settings, backends=backends), sources_s=lambda: 0.0)
    server = uvicorn.Server(
        uvicorn.Config(app, http=Protocol, proxy_headers=False, ws="none", log_level="warning")
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
async def guard(authz_url: str, key: CreatedKey) -> AsyncIterator[Guard]:
    """A guard that asks authz, with a key of the tenant acme."""
    async with httpx.AsyncClient(base_url=authz_url) as client:
        yield Guard(client, key.key)


@pytest.fixture
async def owner(store: Store, key: CreatedKey) -> Identity:
    """The identity behind the key of acme."""
    return await known(store, key.prefix)


async def known(store: Store, prefix: str) -> Identity:
    """The identity of a key."""
    identity = await store.identity(prefix)
    assert identity is not None
    return identity


@pytest.fixture
async def book(database: str) -> AsyncIterator[Book]:
    """An empty ledger."""
    metering, owner = await Metering.connect(database), await asyncpg.connect(database)
    yield Book(metering, owner)
    await owner.close()
    await metering.close()


@pytest.fixture
def outside(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a command line on these stores."""
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("GATEWAY_STATE", str(settings.state))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
async def filled(book: Book, owner: Identity) -> Book:
    """Five requests, one a minute across midnight, the last adjusted and of a strange name."""
    rows = [row_of(owner, START + timedelta(minutes=minute)) for minute in range(5)]
    rows[4] = rows[4]._replace(model="=1+1")
    await book.add(*reversed(rows), rows[4]._replace(entry=1, input_tokens=-3))
    return book

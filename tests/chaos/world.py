"""A whole gateway for a chaos run: its backend, its small disk, its tenants and its stores."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

import asyncpg
from attrs import frozen

from authz import settings as settings_
from authz.accounts.keys import create_key
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.identity.secrets import Peppers, mint
from authz.limiter.limiter import Limiter
from authz.settings import Settings
from authz.store import ADMIN_ROLE, Store
from authz.types import Limits
from tests.backend.app import backend
from tests.backend.serving import served
from tests.chaos import evidence
from tests.chaos.disk import Disk
from tests.chaos.evidence import Truth
from tests.chaos.load import Key
from tests.chaos.questions import Asker, Content, Manner
from tests.ollama.server import running_ollama
from tests.up.stacks import Stack

DISK_SIZE = "48m"
DEADLINE_S = 20
LEDGER_DAYS = 2
AT_ONCE = 16
"""Requests that the real Ollama answers at a time: every client's."""

Models = Callable[[Content], Mapping[Manner, str]]

_TENANTS = {
    "free": Limits(),
    "daily": Limits(tokens_per_day=20_000, tokens_total=40_000),
    "poor": Limits(tokens_total=2_500),
    "narrow": Limits(concurrency=3, requests_per_minute=300, tokens_per_month=1_000_000),
}
_KEYS = (
    ("free", "plain", Limits(), 3, Content.TEXT),
    ("free", "slots", Limits(concurrency=2), 3, Content.GLUED),
    ("daily", "half", Limits(tokens_per_day=10_000), 2, Content.THINKING),
    ("daily", "rest", Limits(), 1, Content.TEXT),
    ("poor", "only", Limits(), 2, Content.TEXT),
    ("narrow", "only", Limits(tokens_total=15_000), 4, Content.CALLS),
)


@frozen
class Behind:
    """The backend of a run: where it is, its models, and its own account of what it did."""

    url: str
    models: Models
    truths: Callable[[], Awaitable[Mapping[str, list[Truth]]]]


@contextmanager
def imitated() -> Iterator[Behind]:
    """The demo backend: text alone, whatever is wished for."""
    with served(backend("demo", "demo-embed")) as url:
        yield Behind(url, lambda _: _named("demo", "demo-embed"), partial(evidence.truths, url))


@contextmanager
def real() -> Iterator[Behind]:
    """The real Ollama, which thinks, calls tools and sends several tokens a frame."""

    def models(content: Content) -> Mapping[Manner, str]:
        return _named("toy-tpl" if content is Content.CALLS else "toy", "toy-embed")

    with running_ollama(parallel=AT_ONCE) as ollama:
        yield Behind(ollama.url, models, partial(evidence.ollama_truths, ollama))


def _named(chat: str, embed: str) -> Mapping[Manner, str]:
    return dict.fromkeys(Manner, chat) | {Manner.EMBED: embed, Manner.UNKNOWN_MODEL: "none-has-it"}


@frozen
class World:
    """The parts that a run breaks and those that judge it."""

    stack: Stack
    disk: Disk
    behind: Behind
    settings: Settings

    @property
    def url(self) -> str:
        """Return the URL at which clients reach the gateway."""
        return f"http://127.0.0.1:{self.stack.port}"


@contextmanager
def running(behind: Behind, roll: str) -> Iterator[World]:
    """Bring a gateway up whose journal lies on a disk of its own and rolls at this size."""
    with tempfile.TemporaryDirectory(prefix="nz") as name:
        disk = Disk(Path(name) / "disk", size=DISK_SIZE)
        disk.folder.mkdir()
        starting = Stack(Path(name) / "s", within=disk.within)
        environ = {
            "OLLAMA_URL": behind.url,
            "GATEWAY_JOURNAL": str(disk.folder / "journal.log"),
            "GATEWAY_JOURNAL_ROLL": roll,
            "GATEWAY_DEADLINE_S": str(DEADLINE_S),
            "GATEWAY_LEDGER_DAYS": str(LEDGER_DAYS),
        }
        done = starting.run("up", "--port", str(starting.port), "--detach", "--json", **environ)
        assert done.returncode == 0, done.stderr
        stack = Stack(starting.state, starting.port, json.loads(done.stdout)["secret"])
        try:
            yield World(stack, disk, behind, settings_.load({}, state=stack.state))
        finally:
            stack.run("down")


@asynccontextmanager
async def session(settings: Settings) -> AsyncIterator[Session]:
    """The stores, as an operator's command has them."""
    store = Store(settings.database_url, role=ADMIN_ROLE)
    limiter = await Limiter.connect(settings.redis_url)
    try:
        yield Session(settings, store, limiter, "tester")
    finally:
        await limiter.close()
        await store.close()


async def populate(operator: Session, models: Models) -> tuple[Key, ...]:
    """Make the tenants and their keys; a tenant with a budget stands among the keys too, without clients."""
    tenants = {name: await create_tenant(operator, name, limits=limits) for name, limits in _TENANTS.items()}
    keys = []
    async with operator.store.connection() as connection:
        for tenant, name, limits, clients, content in _KEYS:
            made = await create_key(operator, tenant=tenant, name=name, limits=limits)
            id_ = await _key_of(connection, made.prefix)
            asker = Asker(models(content), content)
            keys.append(Key(id_, tenants[tenant], made.key, f"{tenant}-{name}", limits, clients, asker))
    return tuple(keys)


def budgets(keys: tuple[Key, ...]) -> tuple[Key, ...]:
    """The tenants, as if each were a key of its own, after the keys."""
    ids = {key.name.partition("-")[0]: key.tenant for key in keys}
    tenants = (
        Key(ids[name], ids[name], "", f"tenant {name}", limits, 0, Asker({}, Content.TEXT))
        for name, limits in _TENANTS.items()
    )
    return (*keys, *tenants)


def strange_keys(settings: Settings) -> tuple[str, ...]:
    """A key that was never made, and a text that is none."""
    return mint(Peppers.read(settings.pepper_file).alive[0]).secret, "nz_not-a-key"


async def _key_of(connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record], lookup: str) -> UUID:
    key: UUID = await connection.fetchval("SELECT key_id FROM secrets WHERE lookup = $1", lookup)
    return key

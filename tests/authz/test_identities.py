"""The work for a key is done once, however many requests ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from authz.accounts.keys import CreatedKey, create_key
from authz.accounts.limits import set_tenant_limits
from authz.accounts.session import Session
from authz.admin.limit_options import LimitOptions
from authz.identity import identities as identities_
from authz.identity.handles import BEGINNING, Handles
from authz.identity.identities import ROW_S, Identities
from authz.identity.secrets import Pepper, Peppers, mint
from authz.settings import Settings
from authz.store import AUTHZ_ROLE, Store
from authz.types import Identity
from tests.authz.test_queue import Clock

AT_ONCE = 64


class Counting(Store):
    """The store, which counts the identities it was asked for."""

    asked = 0

    async def identity(self, lookup: str) -> Identity | None:
        """Count, and ask Postgres."""
        self.asked += 1
        return await super().identity(lookup)


@pytest.fixture
async def counting(database: str) -> AsyncIterator[Counting]:
    """A counting store."""
    opened = Counting(database, role=AUTHZ_ROLE)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is moved."""
    return Clock()


@pytest.fixture
async def identities(counting: Counting, settings: Settings, clock: Clock) -> AsyncIterator[Identities]:
    """The identities of a process that has just started."""
    started = Identities(counting, Peppers.read(settings.pepper_file), now_s=clock)
    yield started
    await started.close()


async def test_requests_of_a_key_share_a_reload(
    identities: Identities, counting: Counting, session: Session, key: CreatedKey
) -> None:
    """Many requests that find a key's versions moved read it from Postgres once, and get what is new."""
    old = await identities.load(key.key)
    assert old is not None
    for version in (2, 3):
        await set_tenant_limits(session, "acme", limits=LimitOptions(rpm=str(version)).applied)
        counting.asked = 0
        found = await asyncio.gather(*(identities.reload(old) for _ in range(AT_ONCE)))
        assert [version] * AT_ONCE == [one.tenant_version for one in found if one is not None]
        assert 1 == counting.asked
        assert found[0] is not None
        old = found[0]


async def test_a_key_is_proven_once_at_a_time(
    identities: Identities, session: Session, key: CreatedKey
) -> None:
    """A key whose proof runs or waits is not proven a second time; another one is."""
    other = await create_key(session, tenant="acme", name="other")
    for secret in (other.key, *[key.key] * 3):
        assert await identities.load(secret) is not None
    assert identities.proving <= 2


async def test_the_line_of_proofs_has_a_bound(
    identities: Identities, key: CreatedKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key for whose proof there is no room is served, but looked up again until it can be proven."""
    monkeypatch.setattr(identities_, "PROOFS", 0)
    assert await identities.load(key.key) is not None
    assert (0, 0, None) == (identities.proving, len(identities), identities.known(key.key))
    monkeypatch.setattr(identities_, "PROOFS", 1)
    served = await identities.load(key.key)
    assert served is not None
    assert served is identities.known(key.key)


async def test_guesses_at_a_secret_ask_postgres_once_a_second(
    identities: Identities, counting: Counting, clock: Clock, key: CreatedKey
) -> None:
    """However many secrets are tried for one handle, its row is read once a second; the true one works."""
    wrong = [key.prefix + mint(Pepper(b"p" * 32)).secret[len(key.prefix) :] for _ in range(AT_ONCE)]
    assert {None} == {await identities.load(secret) for secret in wrong}
    assert await identities.load(key.key) is not None
    assert 1 == counting.asked
    clock.now_s += ROW_S + 0.1
    assert await identities.load(wrong[0]) is None
    assert 2 == counting.asked
    await identities.close()


async def test_handles_are_read_again_a_minute_back(
    counting: Counting, session: Session, clock: Clock, owner_of_tables: asyncpg.Connection, key: CreatedKey
) -> None:
    """A handle is known once it is read, also one that was committed after a later one."""
    handles = Handles(counting, now_s=clock)
    since = await handles.read(BEGINNING)
    assert key.prefix in handles
    late, older = [await create_key(session, tenant="acme", name=name) for name in ("late", "older")]
    query = "UPDATE secrets SET created_at = now() - $2::interval WHERE lookup = $1"
    await owner_of_tables.execute(query, late.prefix, timedelta(seconds=30))
    await owner_of_tables.execute(query, older.prefix, timedelta(minutes=5))
    assert since <= await handles.read(since)
    assert (True, False) == (late.prefix in handles, older.prefix in handles)
    await handles.read(BEGINNING)
    assert older.prefix in handles


async def test_handles_are_not_read_for_ever(
    counting: Counting, session: Session, clock: Clock, owner_of_tables: asyncpg.Connection, key: CreatedKey
) -> None:
    """Many keys that were made long ago are not read each second, even if no later one was made."""
    handles = Handles(counting, now_s=clock)
    await owner_of_tables.execute("UPDATE secrets SET created_at = now() - interval '2 minutes'")
    since = await handles.read(BEGINNING)
    assert [] == [page async for page in counting.handles(since=since)]

"""Names by which clients ask for models: whose stands first, what is granted, listed and noted."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from authz.accounts.aliases import list_aliases, remove_alias, set_alias
from authz.accounts.keys import CreatedKey, create_key
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.decision.aliases import Aliases
from authz.errors import CommandError
from authz.store import AUTHZ_ROLE, Store
from tests.authz.asking import Guard, grant, reason

IN_FORCE_S = 30


@pytest.fixture
async def aliases(database: str) -> AsyncIterator[Aliases]:
    """The aliases of a process."""
    store = Store(database, role=AUTHZ_ROLE)
    yield Aliases(store)
    await store.close()


async def _granted(guard: Guard, name: str, *, key: str | None = None) -> dict[str, object]:
    """Ask for a model by a name until it is granted: an alias is in force a second after the command."""
    async with asyncio.timeout(IN_FORCE_S):
        while (answer := await guard.ask(model=name, key=key)).status_code != 204:
            await asyncio.sleep(0.05)
    return grant(answer)


async def test_whose_alias_stands_first(session: Session, aliases: Aliases) -> None:
    """A name before a model that is called so, that before the longest beginning; a tenant before all."""
    acme, other = [await create_tenant(session, name) for name in ("acme", "other")]
    for alias, model, tenant in (
        ("*", "all:1b", None),
        ("Claude-*", "claude:7b", None),
        ("claude-haiku-*", "haiku:3b", None),
        ("gpt-4o", "gpt:70b", None),
        ("gpt-4o", "acme:8b", "acme"),
        ("c*", "acme-c:8b", "acme"),
        ("codestral", "all-code:22b", None),
    ):
        await set_alias(session, alias, model, tenant=tenant)
    await aliases.read()
    for name, is_there, at_acme, at_other in (
        ("gpt-4o", False, "acme:8b", "gpt:70b"),
        ("GPT-4o:latest", True, "acme:8b", "gpt:70b"),
        ("claude-haiku-4-5", False, "acme-c:8b", "haiku:3b"),
        (" CLAUDE-opus", False, "acme-c:8b", "claude:7b"),
        ("claude-opus", True, None, None),
        ("codestral", False, "acme-c:8b", "all-code:22b"),
        ("codestral", True, "all-code:22b", "all-code:22b"),
        ("o3", False, "all:1b", "all:1b"),
    ):
        found = [aliases.model(tenant, name, is_there=is_there) for tenant in (acme, other)]
        assert [at_acme, at_other] == found, name
    assert {"gpt-4o": "acme:8b", "codestral": "all-code:22b"} == aliases.names(acme)
    assert ("claude-haiku-*", "haiku:3b") in set(aliases.all())


async def test_an_alias_is_the_model_that_it_means(guard: Guard, session: Session, key: CreatedKey) -> None:
    """Model, backends and bound of a Grant are those of the model; one with its own name has none else."""
    await set_alias(session, "claude-*", "demo", tenant=None)
    found = await _granted(guard, "claude-sonnet-4-5")
    plain = grant(await guard.ask(model="demo"))
    assert ("demo", None) == (found["model"], plain["model"])
    for name in ("backends", "ceiling", "reserved", "digest", "cold"):
        assert plain[name] == found[name], name
    assert plain["digest"] is not None
    await remove_alias(session, "claude-*", tenant=None)
    async with asyncio.timeout(IN_FORCE_S):
        while (refused := await guard.ask(model="claude-sonnet-4-5")).status_code == 204:
            await asyncio.sleep(0.05)
    assert (404, "model_unknown") == (refused.status_code, reason(refused))


async def test_allowlists_are_of_the_model(guard: Guard, session: Session) -> None:
    """A key that may use a model may do so by its alias, and one that may not can't by another name."""
    await set_alias(session, "small", "demo-embed", tenant="acme")
    await set_alias(session, "big", "demo", tenant="acme")
    listed = await create_key(session, tenant="acme", name="listed", scope=Scope(models=("demo",)))
    assert "demo" == (await _granted(guard, "big", key=listed.key))["model"]
    assert "model_not_allowed" == reason(await guard.ask(model="small", key=listed.key))


async def test_reads_know_aliases(guard: Guard, session: Session) -> None:
    """Lists have each name of its own, as it was set, and what is asked of it is answered of its model."""
    await set_alias(session, "GPT-4o", "demo", tenant=None)
    await set_alias(session, "none", "no-such-model", tenant=None)
    await set_alias(session, "claude-*", "demo", tenant=None)
    await _granted(guard, "claude-x")
    models = [model["id"] for model in (await guard.read("/v1/models")).json()["data"]]
    assert ["demo:latest", "demo-embed:latest", "GPT-4o"] == models
    tags = (await guard.read("/api/tags")).json()["models"]
    (named,) = [model for model in tags if model["name"] == "GPT-4o"]
    (own,) = [model for model in tags if model["name"] == "demo:latest"]
    assert own | {"name": "GPT-4o", "model": "GPT-4o"} == named
    for name in ("GPT-4o", "claude-x"):
        assert name == (await guard.read(f"/v1/models/{name}")).json()["id"]
        assert 200 == (await guard.read("/api/show", method="POST", model=name)).status_code
    assert 404 == (await guard.read("/v1/models/none")).status_code


async def test_changes_are_noted(session: Session, owner_of_tables: asyncpg.Connection) -> None:
    """Who set an alias, from what to what, and who removed it; the same again is no event."""
    await create_tenant(session, "acme")
    for model in ("one", "one", "two"):
        await set_alias(session, "a*", model, tenant="acme")
    assert [("acme", "a*", "two")] == [
        (each.tenant, each.alias, each.model) for each in await list_aliases(session)
    ]
    await remove_alias(session, "a*", tenant="acme")
    assert [] == await list_aliases(session)
    rows = await owner_of_tables.fetch(
        "SELECT action, old->>'model', new->>'model' FROM admin_audit WHERE action LIKE 'alias%' ORDER BY at"
    )
    assert [
        ("alias_set", None, "one"),
        ("alias_set", "one", "two"),
        ("alias_removed", "two", None),
    ] == [tuple(row) for row in rows]


@pytest.mark.parametrize("alias", ["", "a b", "a*b", "**", "a\n", "ä", "x" * 257])
async def test_what_is_no_alias(session: Session, alias: str) -> None:
    """Odd names are refused with one sentence before anything is written."""
    with pytest.raises(CommandError, match=r"can't be an alias: .*\.$"):
        await set_alias(session, alias, "demo", tenant=None)


@pytest.mark.parametrize("model", ["", "a*", "a b", "ä"])
async def test_what_is_no_model(session: Session, model: str) -> None:
    """An alias means one model."""
    with pytest.raises(CommandError, match=r"is no model's name: .*\.$"):
        await set_alias(session, "a", model, tenant=None)


async def test_what_is_not_there(session: Session) -> None:
    """Neither an unknown tenant nor an unknown alias is passed over."""
    with pytest.raises(CommandError, match="There is no tenant 'nowhere'"):
        await set_alias(session, "a", "demo", tenant="nowhere")
    with pytest.raises(CommandError, match="There is no alias 'a' for all tenants"):
        await remove_alias(session, "a", tenant=None)


async def test_aliases_outlast_postgres(session: Session, aliases: Aliases) -> None:
    """What was read last stays while Postgres can't be asked."""
    await set_alias(session, "a", "demo", tenant=None)
    await aliases.read()
    aliases._store = Store("postgresql://127.0.0.1:9/none", role=AUTHZ_ROLE)
    await aliases.read()
    assert "demo" == aliases.model(uuid.uuid4(), "a", is_there=False)

"""The commands, as functions on real stores."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import asyncpg
import pytest

from authz.__main__ import run
from authz.accounts.keys import CreatedKey, KeyState, create_key, list_keys, rotate_key, set_key_state
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant, list_tenants
from authz.admin.usage import Usage, usage
from authz.errors import CommandError
from authz.store import Store
from tests.authz.conftest import known


async def test_tenant_is_created_once(session: Session) -> None:
    """A tenant's name is taken for good."""
    await create_tenant(session, "acme")
    with pytest.raises(CommandError, match="exists already"):
        await create_tenant(session, "acme")
    assert ["acme"] == [tenant.tenant for tenant in await list_tenants(session)]


@pytest.mark.parametrize("name", ["", "Acme", "a b", "-a", "a" * 64, "ä"])
async def test_tenant_name_is_plain(session: Session, name: str) -> None:
    """A name that could confuse a shell or a log is refused, and nothing is written."""
    with pytest.raises(CommandError, match="can't be used"):
        await create_tenant(session, name)
    assert [] == await list_tenants(session)


async def test_versions_are_known_to_redis(session: Session, store: Store, key: CreatedKey) -> None:
    """After create-key has returned, Redis knows the versions of tenant and key."""
    identity = await known(store, key.prefix)
    assert (1, 1) == await session.limiter.versions(identity.tenant, identity.key)
    assert () == await session.store.unpublished_versions()


async def test_revoke_raises_the_version(session: Session, store: Store, key: CreatedKey) -> None:
    """After revoke-key has returned, a cached identity no longer fits Redis."""
    assert "first" == (await set_key_state(session, key.prefix, "revoked"))["name"]
    identity = await known(store, key.prefix)
    assert "revoked" == identity.key_state
    assert (1, 2) == await session.limiter.versions(identity.tenant, identity.key)


async def test_revoke_twice_changes_nothing(session: Session, store: Store, key: CreatedKey) -> None:
    """A second revoke is no error and no second change."""
    await set_key_state(session, key.prefix, "revoked")
    await set_key_state(session, key.prefix, "revoked")
    identity = await known(store, key.prefix)
    assert 2 == identity.key_version


async def test_secret_is_not_stored(owner_of_tables: asyncpg.Connection, key: CreatedKey) -> None:
    """No column of any table holds the secret part of a key."""
    secret = key.key[len(key.prefix) : -6]
    for table in ("tenants", "keys", "secrets"):
        rows = await owner_of_tables.fetch(f"SELECT to_jsonb(t)::text AS text FROM {table} AS t")  # noqa: S608
        assert rows
        assert all(secret not in row["text"] for row in rows)


async def test_key_name_is_taken_within_its_tenant(session: Session, key: CreatedKey) -> None:
    """Two keys of a tenant can't share a name."""
    with pytest.raises(CommandError, match="choose another name"):
        await create_key(session, tenant="acme", name="first")
    assert 1 == len(await list_keys(session, "acme"))


async def test_a_key_is_no_name(session: Session, key: CreatedKey) -> None:
    """C3: a key pasted where a name belongs is refused, not stored."""
    with pytest.raises(CommandError, match="can't be used"):
        await create_key(session, tenant="acme", name=key.key)


@pytest.mark.parametrize("prefix", ["nz_", "nz_unknown1", "' OR 1=1 --", "nz_aaaaaaaa0"])
async def test_unknown_prefix_is_one_sentence(session: Session, key: CreatedKey, prefix: str) -> None:
    """A prefix that names no key says where to find one."""
    with pytest.raises(CommandError, match="list-keys"):
        await set_key_state(session, prefix, "revoked")


async def test_usage_of_an_unused_key_is_zero(session: Session, key: CreatedKey) -> None:
    """A key that was never used is on the list all the same."""
    rows = await usage(session)
    assert [Usage(tenant="acme", key="first", prefix=key.prefix)] == rows


async def test_the_restrictions_of_a_key_are_listed(session: Session, key: CreatedKey) -> None:
    """Whatever restricts a key can be read again: models, networks, output cap and expiry."""
    scope = Scope(("demo*",), ("127.0.0.0/8",), datetime(2199, 1, 1, tzinfo=UTC), 50, 604_800)
    await create_key(session, tenant="acme", name="bound", scope=scope)
    first, bound = await list_keys(session, "acme")
    assert (None, None, None, None) == (first.models, first.cidrs, first.expires, first.max_output)
    assert (["demo*"], ["127.0.0.0/8"], 50) == (bound.models, bound.cidrs, bound.max_output)
    assert scope.expires_at == bound.expires
    assert (None, 604_800) == (first.log_prompts_s, bound.log_prompts_s)


async def test_keys_that_have_ended_are_listed_on_request(session: Session, key: CreatedKey) -> None:
    """Neither a revoked key nor a secret of before a rotation is listed, unless it is asked for."""
    newer = await rotate_key(session, key.prefix, grace_ends=datetime(2020, 1, 1, tzinfo=UTC))
    paused, revoked = [await create_key(session, tenant="acme", name=name) for name in ("paused", "ended")]
    await set_key_state(session, paused.prefix, "disabled")
    await set_key_state(session, revoked.prefix, "revoked")
    for state, expected in (
        (None, [newer, paused]),
        (KeyState.ACTIVE, [key, newer]),
        (KeyState.DISABLED, [paused]),
        (KeyState.REVOKED, [revoked]),
        (KeyState.ANY, [key, newer, paused, revoked]),
    ):
        listed = await list_keys(session, "acme", state=state)
        assert [one.prefix for one in expected] == [one.prefix for one in listed]
    assert ["paused"] == [one.key for one in await list_keys(session, "acme", beginning="pau")]


@pytest.mark.usefixtures("outside")
def test_a_rotation_says_until_when_the_older_secret_works(
    key: CreatedKey, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the end, and the command that ends the older secret now, which then does it."""
    assert 0 == run(["rotate-key", "--prefix", key.prefix, "--grace", "2199-01-01"])
    rotated = capsys.readouterr().out
    command = f"revoke-secret --prefix {key.prefix}"
    assert (
        f"Until 2199-01-01 00:00:00Z the secrets of before work, too: `neuronetz-gateway {command}`"
        in rotated
    )
    assert 0 == run(command.split())
    assert f"The secret {key.prefix} of key first has ended" in capsys.readouterr().out
    assert 0 == run(["list-keys", "--tenant", "acme"])
    assert key.prefix not in capsys.readouterr().out
    assert 0 == run(["rotate-key", "--prefix", key.prefix, "--grace", "0m"])
    assert "The secrets of before have ended." in capsys.readouterr().out


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("command", ["list-tenants", "list-keys"])
def test_a_table_shows_seconds(key: CreatedKey, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A moment in a table is of UTC, to the second."""
    assert 0 == run(command.split())
    moments = re.findall(r"\d{4}-\d\d-\d\d \S+", capsys.readouterr().out)
    assert moments
    assert [] == [text for text in moments if not re.fullmatch(r"\S+ \d\d:\d\d:\d\dZ", text)]


@pytest.mark.usefixtures("outside")
def test_keys_fit_a_terminal(
    key: CreatedKey, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no key has takes no column; 80 cells show a prefix that can be copied, and what is allowed."""
    monkeypatch.setenv("COLUMNS", "80")
    assert 0 == run(["list-keys"])
    table = capsys.readouterr().out
    assert ["prefix", "tenant", "key", "state", "created"] == table.splitlines()[0].split()
    assert key.prefix in table
    allowed = ["--in-path", "allowed", "--log-prompts", "7d"]
    assert 0 == run(["set-limits", "--prefix", key.prefix, *allowed])
    capsys.readouterr()
    assert 0 == run(["list-keys"])
    assert re.search(rf"{key.prefix} +acme +first +active +7d +yes +\d", capsys.readouterr().out)

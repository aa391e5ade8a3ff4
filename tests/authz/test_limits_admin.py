"""Limits set and shown, keys rotated and disabled: in force with the command's return."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from authz.accounts.keys import CreatedKey, create_key, end_secret, rotate_key, set_key_state
from authz.accounts.limits import set_key_limits, set_tenant_limits, show
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.accounts.tenants import set_tenant_state
from authz.admin.audit import audit
from authz.admin.limit_options import LimitOptions, ScopeOptions
from authz.errors import CommandError
from authz.store import Store
from authz.types import Limits
from tests.authz.asking import NODE, Guard, grant, reason
from tests.authz.conftest import known

LONG_AGO, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2199, 1, 1, tzinfo=UTC)


async def test_a_changed_limit_holds_for_the_next_request(
    guard: Guard, session: Session, key: CreatedKey
) -> None:
    """A limit bites with the return of set-limits, and ends with the return of `none`."""
    assert 204 == (await guard.ask()).status_code
    await set_tenant_limits(session, "acme", limits=LimitOptions(rpm="1").applied)
    assert [204, 429] == [(await guard.ask()).status_code for _ in range(2)]
    await set_tenant_limits(session, "acme", limits=LimitOptions(rpm="none").applied)
    assert 204 == (await guard.ask()).status_code


async def test_max_output_of_a_key(guard: Guard, session: Session, key: CreatedKey) -> None:
    """A key's cap is granted even to a client that names a larger one."""
    scope = ScopeOptions(max_output="10")
    await set_key_limits(session, key.prefix, scope=lambda old: scope.applied(old, datetime.now(UTC)))
    for asked in (None, 500):
        assert 10 == grant(await guard.ask(max_output=asked))["max_output"]
    assert 3 == grant(await guard.ask(max_output=3))["max_output"]


async def test_key_above_its_tenant_is_noted(session: Session, key: CreatedKey) -> None:
    """A key's limit above its tenant's is set, and the command notes that the tenant's holds."""
    await set_tenant_limits(session, "acme", limits=LimitOptions(tokens_total="100").applied)
    noted = await set_key_limits(
        session,
        key.prefix,
        limits=LimitOptions(tokens_total="1000").applied,
    )
    assert ["tokens_total"] == noted


async def test_refused_options_write_nothing(session: Session, store: Store, key: CreatedKey) -> None:
    """What is refused changes neither limits nor version nor audit."""
    with pytest.raises(CommandError):
        await set_tenant_limits(session, "acme", limits=LimitOptions(rpm="0").applied)
    identity = await known(store, key.prefix)
    assert (1, Limits()) == (identity.tenant_version, identity.tenant_limits)


async def test_show_limits(guard: Guard, session: Session, key: CreatedKey) -> None:
    """Each limit is shown with what is used, held and left, for the tenant and its keys."""
    limits = LimitOptions(rpm="10", tokens_total="1000")
    await set_tenant_limits(session, "acme", limits=limits.applied)
    await create_key(session, tenant="acme", name="capped", limits=Limits(concurrency=3))
    await session.limiter.vouch(NODE, lag_ms=0)
    await guard.ask(max_output=100)
    rows = await show(session, tenant="acme", prefix=None, now=datetime.now(UTC))
    by_name = {(row.scope, row.limit): row for row in rows}
    requests = by_name["acme", "requests per minute"]
    assert (10, 1, 9) == (requests.value, requests.used, requests.left)
    total = by_name["acme", "tokens total"]
    held = total.held or 0
    assert held > 100
    assert total.left == 1000 - held
    assert 3 == len(rows)


async def test_show_limits_shows_restrictions(session: Session, key: CreatedKey) -> None:
    """Restrictions of a key are shown with its limits; a revoked key is not shown."""
    scope = Scope(("demo*",), ("127.0.0.0/8",), datetime(2199, 1, 1, tzinfo=UTC), 50, 604_800)
    bound = await create_key(session, tenant="acme", name="bound", scope=scope)
    ended = await create_key(session, tenant="acme", name="ended", scope=scope)
    await set_key_state(session, ended.prefix, "revoked")
    expected = [
        ("models", scope.models),
        ("networks", scope.cidrs),
        ("expires", scope.expires_at),
        ("output of an answer", 50),
        ("log_prompts_s", 604_800),
    ]
    for tenant, prefix in (("acme", None), (None, bound.prefix)):
        rows = await show(session, tenant=tenant, prefix=prefix, now=datetime.now(UTC))
        assert {bound.prefix} == {row.scope for row in rows}
        assert expected == [(row.limit, row.value) for row in rows]


async def test_a_rotated_key_has_one_name_for_its_limits(session: Session, key: CreatedKey) -> None:
    """Limits are the key's: listed once, or under the prefix that was asked for."""
    await set_key_limits(session, key.prefix, limits=LimitOptions(rpm="3").applied)
    newer = await rotate_key(session, key.prefix, grace_ends=datetime(2199, 1, 1, tzinfo=UTC))
    for tenant, prefix, scope in (
        ("acme", None, key.prefix),
        (None, key.prefix, key.prefix),
        (None, newer.prefix, newer.prefix),
    ):
        rows = await show(session, tenant=tenant, prefix=prefix, now=datetime.now(UTC))
        assert [(scope, 3)] == [(row.scope, row.value) for row in rows]


async def test_show_limits_waits_for_no_lock(session: Session, key: CreatedKey) -> None:
    """Limits are shown while another command changes the tenant and its keys."""
    async with session.store.connection() as other, other.transaction():
        await other.execute("SELECT FROM tenants FOR UPDATE")
        await other.execute("SELECT FROM keys FOR UPDATE")
        async with asyncio.timeout(5):
            assert [] == await show(session, tenant="acme", prefix=None, now=datetime.now(UTC))
            assert [] == await show(session, tenant=None, prefix=key.prefix, now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("tenant", "prefix", "sentence"),
    [
        ("nothere", None, "no tenant 'nothere'"),
        (None, "nz_aaaaaaaa", "no key nz_aaaaaaaa"),
        (None, "a", "11"),
    ],
)
async def test_limits_of_nothing(
    session: Session, tenant: str | None, prefix: str | None, sentence: str
) -> None:
    """A tenant or key that is unknown is one sentence."""
    with pytest.raises(CommandError, match=sentence):
        await show(session, tenant=tenant, prefix=prefix, now=datetime.now(UTC))


async def test_metering_must_vouch_for_a_budget(guard: Guard, session: Session, key: CreatedKey) -> None:
    """A key with a budget is refused while its node's metering is silent or far behind; others pass."""
    assert 204 == (await guard.ask()).status_code
    await set_tenant_limits(session, "acme", limits=LimitOptions(tokens_total="1000000").applied)
    assert "metering_unavailable" == reason(await guard.ask(max_output=10))
    await session.limiter.vouch(NODE, lag_ms=61_000)
    assert "metering_unavailable" == reason(await guard.ask(max_output=10))
    await session.limiter.vouch(NODE, lag_ms=10)
    assert 204 == (await guard.ask(max_output=10)).status_code


async def test_rotation_keeps_limits_and_ends_the_old_secret(
    guard: Guard, session: Session, key: CreatedKey
) -> None:
    """Both secrets are one key until the grace period ends; then the old one is refused."""
    await set_key_limits(session, key.prefix, limits=LimitOptions(rpm="3").applied)
    later = datetime.now(UTC) + timedelta(hours=1)
    new = await rotate_key(session, key.prefix, grace_ends=later)
    answers = [
        await guard.ask(),
        await guard.ask(key=new.key),
        await guard.ask(),
        await guard.ask(key=new.key),
    ]
    assert [204, 204, 204, 429] == [answer.status_code for answer in answers]
    newest = await rotate_key(session, new.prefix, grace_ends=datetime.now(UTC))
    assert "key_expired" == reason(await guard.ask())
    assert "key_expired" == reason(await guard.ask(key=new.key))
    assert 429 == (await guard.ask(key=newest.key)).status_code


async def test_one_secret_ends_at_once(guard: Guard, session: Session, key: CreatedKey) -> None:
    """A secret that has ended is refused when the command returns; the key's other ones go on."""
    new = await rotate_key(session, key.prefix, grace_ends=LATER)
    newest = await rotate_key(session, key.prefix, grace_ends=LATER)
    assert [204] * 3 == [(await guard.ask(key=each.key)).status_code for each in (key, new, newest)]
    await end_secret(session, new.prefix, at=datetime.now(UTC))
    assert "key_expired" == reason(await guard.ask(key=new.key))
    assert [204] * 2 == [(await guard.ask(key=each.key)).status_code for each in (key, newest)]


async def test_the_last_secret_is_not_ended(guard: Guard, session: Session, key: CreatedKey) -> None:
    """What would leave a key without any secret is refused, and names what to do instead."""
    with pytest.raises(CommandError, match=r"rotate-key --prefix nz_.* --grace 0m"):
        await end_secret(session, key.prefix, at=datetime.now(UTC))
    assert 204 == (await guard.ask()).status_code
    ended = await rotate_key(session, key.prefix, grace_ends=datetime.now(UTC))
    for _ in range(2):
        await end_secret(session, key.prefix, at=datetime.now(UTC))
    assert 204 == (await guard.ask(key=ended.key)).status_code
    assert [] == [event for event in await audit(session, since=LONG_AGO) if event.action == "secret_revoked"]


async def test_disable_and_enable(guard: Guard, session: Session, key: CreatedKey) -> None:
    """A disabled key or tenant is refused at once, and works again once enabled."""
    await set_key_state(session, key.prefix, "disabled")
    assert "key_disabled" == reason(await guard.ask())
    await set_key_state(session, key.prefix, "active")
    assert 204 == (await guard.ask()).status_code
    await set_tenant_state(session, "acme", "disabled")
    assert "tenant_disabled" == reason(await guard.ask())
    await set_tenant_state(session, "acme", "active")
    assert 204 == (await guard.ask()).status_code


async def test_revoked_is_for_good(session: Session, key: CreatedKey) -> None:
    """A revoked key can be neither enabled nor rotated."""
    await set_key_state(session, key.prefix, "revoked")
    with pytest.raises(CommandError, match="for good"):
        await set_key_state(session, key.prefix, "active")
    with pytest.raises(CommandError, match="for good"):
        await rotate_key(session, key.prefix, grace_ends=datetime.now(UTC))


async def test_expired_key(guard: Guard, session: Session) -> None:
    """A key ends at its expiry."""
    soon = datetime.now(UTC) + timedelta(milliseconds=1)
    short = await create_key(session, tenant="acme", name="short", scope=Scope(expires_at=soon))
    answer = await guard.ask(key=short.key)
    while answer.status_code == 204:
        answer = await guard.ask(key=short.key)
    assert "key_expired" == reason(answer)


async def test_changes_are_audited(session: Session, key: CreatedKey) -> None:
    """Every change has a row of who, what, old and new, and no row has a secret."""
    await set_key_state(session, key.prefix, "disabled")
    async with session.store.connection() as connection:
        rows = await connection.fetch("SELECT actor, action, old, new FROM admin_audit ORDER BY id")
    assert ["tenant_created", "key_created", "key_disabled"] == [row["action"] for row in rows]
    assert {"tester"} == {row["actor"] for row in rows}
    assert all(key.key[11:] not in str(dict(row)) for row in rows)

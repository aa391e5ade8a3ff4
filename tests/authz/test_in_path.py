"""A key may stand in the path of a request only where its tenant's operator has allowed that, key by key."""

from __future__ import annotations

import json

import pytest

from authz.accounts.keys import CreatedKey, create_key, list_keys, set_key_state
from authz.accounts.limits import set_key_limits
from authz.accounts.session import Session
from authz.admin.policy_options import PolicyOptions
from authz.errors import UsageError
from authz.identity.secrets import Pepper, mint, presented
from authz.types import Policy
from tests.authz.asking import Guard, reason

ALLOWED = PolicyOptions(in_path="allowed")


async def test_it_is_off_by_default(guard: Guard, session: Session, key: CreatedKey) -> None:
    """Without the permission a right key in a path is refused; with its change, from the return on."""
    assert "key_in_path" == reason(await guard.ask(in_path=True))
    assert 204 == (await guard.ask()).status_code
    await set_key_limits(session, key.prefix, policy=ALLOWED.applied)
    assert 204 == (await guard.ask(in_path=True)).status_code
    assert 204 == (await guard.ask()).status_code
    await set_key_limits(session, key.prefix, policy=PolicyOptions(in_path="refused").applied)
    assert "key_in_path" == reason(await guard.ask(in_path=True))
    assert 204 == (await guard.ask()).status_code


async def test_other_questions_are_refused_likewise(guard: Guard, session: Session, key: CreatedKey) -> None:
    """A read route, and the question about a key alone, need the same permission."""
    assert "key_in_path" == reason(await guard.read("/api/version", in_path=True))
    assert "key_in_path" == reason(await guard.ask(in_path=True, problem="body_unread"))
    await set_key_limits(session, key.prefix, policy=ALLOWED.applied)
    assert 200 == (await guard.read("/api/version", in_path=True)).status_code
    assert 204 == (await guard.ask(in_path=True, problem="body_unread")).status_code


async def test_strangers_learn_nothing(guard: Guard, session: Session) -> None:
    """A key without the permission is refused with the bytes and headers of an unknown one."""
    revoked = await create_key(session, tenant="acme", name="revoked", policy=Policy(in_path=1))
    await set_key_state(session, revoked.prefix, "revoked")
    shown = set()
    for secret in (guard.key, revoked.key, mint(Pepper(b"p" * 32)).secret, ""):
        answer = await guard.ask(key=secret, in_path=True)
        assert b"send a valid key as 'Authorization: Bearer nz_...'" in answer.content
        told = {name: value for name, value in answer.headers.items() if name not in {"date", "x-nz-denial"}}
        shown.add((answer.status_code, answer.content, json.dumps(told, sort_keys=True)))
    assert 1 == len(shown)


async def test_a_key_that_is_revoked_stays_so(guard: Guard, session: Session) -> None:
    """The permission is one more condition, and takes none of the others away."""
    created = await create_key(session, tenant="acme", name="disabled", policy=Policy(in_path=1))
    assert 204 == (await guard.ask(key=created.key, in_path=True)).status_code
    await set_key_state(session, created.prefix, "disabled")
    assert "key_disabled" == reason(await guard.ask(key=created.key, in_path=True))


async def test_it_is_shown_and_audited(session: Session, key: CreatedKey) -> None:
    """list-keys names who has the permission, and the audit who gave it."""
    created = await create_key(session, tenant="acme", name="in-path", policy=Policy(in_path=1))
    assert {key.prefix: False, created.prefix: True} == {
        each.prefix: each.in_path for each in await list_keys(session, "acme")
    }
    await set_key_limits(session, key.prefix, policy=ALLOWED.applied)
    async with session.store.connection() as connection:
        rows = await connection.fetch("SELECT actor, action, new FROM admin_audit ORDER BY at")
    given = [row["action"] for row in rows if '"in_path": 1' in (row["new"] or "")]
    assert ["key_created", "limits_set"] == given
    assert {"tester"} == {row["actor"] for row in rows}


def test_no_tenant_has_it_for_all_its_keys() -> None:
    """It is opened for each key by itself."""
    with pytest.raises(UsageError, match=r"^--in-path belongs to a key[^\n]*\.$"):
        ALLOWED.of_tenant()
    assert PolicyOptions(weight=3) == PolicyOptions(weight=3).of_tenant()
    assert Policy() == PolicyOptions(in_path="refused").applied(Policy(in_path=1))


def test_an_older_authz_takes_none() -> None:
    """The guard names a key of a path as such twice: who knows only one of the two finds no key."""
    secret = mint(Pepper(b"p" * 32)).secret
    for scheme, in_path, expected in (
        ("Path", True, secret),
        ("Path", False, None),
        ("Bearer", True, None),
        ("Bearer", False, secret),
    ):
        headers = [(b"authorization", f"{scheme} {secret}".encode())]
        assert expected == presented(headers, in_path)

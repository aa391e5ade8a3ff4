"""Asks about a key alone, before its body is read: they are answered, and nothing else happens."""

from __future__ import annotations

import json

import asyncpg
import httpx

from authz.accounts.keys import CreatedKey, create_key
from authz.accounts.limits import set_key_limits
from authz.accounts.session import Session
from authz.accounts.tenants import set_tenant_state
from authz.identity.secrets import Pepper, mint
from authz.types import Limits
from tests.authz.asking import Guard, reason, uuid7

ONE_A_MINUTE = Limits(requests_per_minute=1)


async def alone(
    guard: Guard, path: str = "/api/chat", *, key: str | None = None, **fields: object
) -> httpx.Response:
    """Ask about a key alone."""
    return await guard.ask(path, key=key, **fields, model=None, bounds=None, problem="body_unread")


async def test_a_known_key_is_named_by_its_ask(guard: Guard) -> None:
    """A key that may send requests is answered 204 with the id of its Ask, and without a Grant."""
    id_ = uuid7()
    answer = await alone(guard, id=str(id_))
    assert 204 == answer.status_code
    assert {"v": 1, "id": str(id_)} == json.loads(answer.headers["x-nz-known"])
    assert "x-nz-grant" not in answer.headers


async def test_other_keys_are_refused(
    guard: Guard, session: Session, key: CreatedKey, owner_of_tables: asyncpg.Connection
) -> None:
    """An unknown, expired or disabled key, and one from elsewhere, get the refusal of their requests."""
    wrong = mint(Pepper(b"p" * 32)).secret
    assert "key_unknown" == reason(await alone(guard, key=wrong))
    assert "path_unknown" == reason(await alone(guard, "/nothing"))
    bound = await create_key(session, tenant="acme", name="bound")
    await owner_of_tables.execute("UPDATE keys SET cidrs = '{203.0.113.0/24}' WHERE name = 'bound'")
    assert "cidr" == reason(await alone(guard, key=bound.key, ip="198.51.100.1"))
    late = await create_key(session, tenant="acme", name="late")
    await owner_of_tables.execute("UPDATE keys SET expires_at = now() WHERE name = 'late'")
    assert "key_expired" == reason(await alone(guard, key=late.key))
    assert 204 == (await alone(guard)).status_code
    await set_tenant_state(session, "acme", "disabled")
    assert "tenant_disabled" == reason(await alone(guard))


async def test_nothing_is_admitted_or_charged(guard: Guard, session: Session, key: CreatedKey) -> None:
    """However often a key is asked for alone, its limits stay untouched."""
    await set_key_limits(session, key.prefix, limits=lambda _: ONE_A_MINUTE)
    for _ in range(3):
        assert 204 == (await alone(guard)).status_code
    assert 204 == (await guard.ask()).status_code
    assert "rate_requests" == reason(await guard.ask())
    assert 204 == (await alone(guard)).status_code

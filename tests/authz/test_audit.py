"""The list of administrators' changes and clients' refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import msgspec
import pytest
from attrs import asdict, evolve

from authz.__main__ import run
from authz.accounts.keys import CreatedKey, create_key, rotate_key, set_key_state
from authz.accounts.limits import set_key_limits, set_tenant_limits
from authz.accounts.scope import Scope
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.admin.audit import audit
from authz.store import Store
from authz.types import Identity, Limits
from metering.rows import Refused
from tests.authz.billing import Book, denied, served
from tests.authz.conftest import known

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
LATER = datetime(2199, 1, 1, tzinfo=UTC)


async def test_changes_are_listed_with_old_and_new(session: Session, key: CreatedKey) -> None:
    """Each change is one event: actor, action, subject, old and new value."""
    await set_key_state(session, key.prefix, "disabled")
    events = await audit(session, since=LONG_AGO)
    assert ["tenant_created", "key_created", "key_disabled"] == [event.action for event in events]
    last = events[-1]
    assert ("tester", "acme", "first") == (last.actor, last.tenant, last.key)
    assert ({"state": "active"}, {"state": "disabled"}) == (last.old, last.new)
    assert "state=active -> state=disabled" == last.change


async def test_refusals_stand_between_changes(session: Session, book: Book, owner: Identity) -> None:
    """One order of time: a refusal of a key is listed with its reason, what was served is not."""
    now = datetime.now(UTC)
    await book.add(denied(owner, now + timedelta(seconds=1)), served(owner, now + timedelta(seconds=1)))
    *_, event = await audit(session, since=LONG_AGO)
    assert (owner.lookup, "request_denied", "acme", "first") == (
        event.actor,
        event.action,
        event.tenant,
        event.key,
    )
    assert {
        "request": str(book.rows[0].request_id),
        "reason": "model_not_allowed",
        "status": 403,
        "ip": "203.0.113.9",
        "method": "POST",
        "path": "/api/chat",
        "model": "llama3.2",
    } == event.new


async def test_counted_refusals_are_listed_by_the_minute(
    session: Session, book: Book, owner: Identity
) -> None:
    """Counted refusals are one event a minute: by source if no key is known, else by key."""
    minute = datetime(2026, 11, 25, 12, tzinfo=UTC)
    await book.store.add_refusals(
        [
            Refused(minute, None, None, ip_network("2001:db8::/64"), "key_missing", 7),
            Refused(minute, owner.tenant, owner.key, None, "rate_limited", 9),
        ]
    )
    events = await audit(session, since=minute + timedelta(seconds=30))
    listed = {
        (event.at, event.actor, event.key, event.new["reason"], event.new["refusals"]) for event in events[:2]
    }
    assert {
        (minute, "2001:db8::/64", None, "key_missing", 7),
        (minute, "many", "first", "rate_limited", 9),
    } == listed


async def test_an_audit_can_be_of_one(session: Session, book: Book, owner: Identity) -> None:
    """--tenant, --prefix and --since leave out what is another's, and what was before."""
    await create_tenant(session, "zeta")
    other = await create_key(session, tenant="zeta", name="third")
    await book.add(denied(owner, datetime.now(UTC)))
    assert {"zeta"} == {event.tenant for event in await audit(session, since=LONG_AGO, tenant="zeta")}
    assert {"third"} == {event.key for event in await audit(session, since=LONG_AGO, prefix=other.prefix)}
    mine = await audit(session, since=LONG_AGO, prefix=owner.lookup)
    assert ["key_created", "request_denied"] == sorted(event.action for event in mine)
    assert [] == await audit(session, since=datetime.now(UTC) + timedelta(hours=1))


async def test_a_change_of_limits_is_whole(session: Session, store: Store, key: CreatedKey) -> None:
    """A limit, a restriction and a time zone are listed before and after; no change is no event."""
    scope = Scope(
        models=("demo*",), cidrs=("127.0.0.0/8",), expires_at=LATER, max_output=50, log_prompts_s=604_800
    )
    for _ in range(2):
        await set_key_limits(session, key.prefix, scope=lambda _: scope)
        await set_tenant_limits(session, "acme", limits=lambda old: old, timezone="Europe/Berlin")
    events = [event for event in await audit(session, since=LONG_AGO) if event.action == "limits_set"]
    assert [("first", "models"), (None, "timezone")] == [
        (event.key, next(name for name in ("models", "timezone") if name in event.new)) for event in events
    ]
    of_key, of_tenant = events
    assert (None, ["demo*"]) == (of_key.old["models"], of_key.new["models"])
    assert (None, ["127.0.0.0/8"]) == (of_key.old["cidrs"], of_key.new["cidrs"])
    assert (None, 50) == (of_key.old["max_output"], of_key.new["max_output"])
    assert (None, 604_800) == (of_key.old["log_prompts_s"], of_key.new["log_prompts_s"])
    assert of_key.old["expires_at"] is None
    assert LATER == datetime.fromisoformat(of_key.new["expires_at"])
    assert ("UTC", "Europe/Berlin") == (of_tenant.old["timezone"], of_tenant.new["timezone"])
    identity = await known(store, key.prefix)
    assert (2, 2) == (identity.tenant_version, identity.key_version)


async def test_an_audit_can_be_of_an_actor(session: Session, key: CreatedKey) -> None:
    """--actor leaves what this one did."""
    other = evolve(session, actor="carol@example.com")
    await set_key_state(other, key.prefix, "disabled")
    await set_key_state(session, key.prefix, "active")
    events = await audit(session, since=LONG_AGO, actor="carol@example.com")
    assert [("carol@example.com", "key_disabled")] == [(event.actor, event.action) for event in events]


async def test_a_change_shows_what_differs(session: Session, key: CreatedKey) -> None:
    """In one line stands what was set, or what was changed from and to: a limit that was lifted, too."""
    await set_tenant_limits(session, "acme", limits=lambda _: Limits(requests_per_minute=5))
    await set_tenant_limits(session, "acme", limits=lambda _: Limits(), timezone="Europe/Berlin")
    newer = await rotate_key(session, key.prefix, grace_ends=LATER)
    secrets = sorted([f"{key.prefix} until 2199-01-01T00:00:00Z", newer.prefix])
    created, _, *changes = [event.change for event in await audit(session, since=LONG_AGO)]
    assert "name=acme state=active timezone=UTC" == created
    assert [
        "requests_per_minute=none -> requests_per_minute=5",
        "timezone=UTC requests_per_minute=5 -> timezone=Europe/Berlin requests_per_minute=none",
        f"secrets={key.prefix} -> secrets={','.join(secrets)}",
    ] == changes


async def test_an_audit_has_no_secret(session: Session, key: CreatedKey) -> None:
    """C3: of a key only its public handle is listed, whatever was done with it."""
    rotated = await rotate_key(session, key.prefix, grace_ends=datetime.now(UTC))
    await set_key_state(session, rotated.prefix, "revoked")
    listed = msgspec.json.encode([asdict(event) for event in await audit(session, since=LONG_AGO)]).decode()
    assert rotated.prefix in listed
    for made in (key, rotated):
        assert made.key[len(made.prefix) : -6] not in listed


@pytest.mark.usefixtures("outside", "key")
def test_the_command_prints_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people, a list of objects for programs."""
    assert 0 == run(["audit"])
    assert "tenant created" not in (table := capsys.readouterr().out)
    assert "tenant_created" in table
    assert 0 == run(["audit", "--json", "--since", "7d"])
    events = json.loads(capsys.readouterr().out)
    assert ["tenant_created", "key_created"] == [event["action"] for event in events]
    assert {"id", "at", "actor", "action", "tenant", "key", "old", "new"} == set(events[0])
    assert 0 == run(["audit", "--since", "2099-01-01"])
    assert "Nothing has happened since 2099-01-01 00:00." in capsys.readouterr().out

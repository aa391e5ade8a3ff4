"""Create, list, disable and enable tenants."""

from __future__ import annotations

import re
import uuid
from datetime import datetime  # noqa: TC003 (msgspec and attrs read it)
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from attrs import frozen

import sql
from authz.accounts import scope
from authz.errors import CommandError, UsageError
from authz.types import Limits, Policy

if TYPE_CHECKING:
    from authz.accounts.session import Session

_STATES: Final = {"active": "tenant_enabled", "disabled": "tenant_disabled"}
"""What the audit calls the change to a state."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)

_queries = sql.load("accounts")


@frozen
class Tenant:
    """A tenant, as its operator sees it."""

    tenant: str
    state: str
    timezone: str
    keys: int
    created: datetime


async def create_tenant(
    session: Session,
    name: str,
    *,
    limits: Limits = Limits(),
    policy: Policy = Policy(),
    timezone: str = "UTC",
) -> uuid.UUID:
    """Create a tenant: Redis knows it before Postgres does, so that it never looks lost."""
    if not _NAME.fullmatch(name):
        sentence = (
            f"The tenant name {name!r} can't be used: take lower-case letters, digits and . _ -, at most 63."
        )
        raise UsageError(sentence)
    tenant = uuid.uuid4()
    try:
        async with session.store.connection() as connection, connection.transaction():
            await _queries.insert_tenant(
                connection,
                tenant=tenant,
                name=name,
                timezone=timezone,
                policy=scope.policy_column(policy),
                **scope.columns(limits),
            )
            new = scope.tenant_values(await find_tenant(connection, name))
            await session.audit(connection, "tenant_created", tenant=tenant, new=new)
            await session.introduce(tenant)
    except asyncpg.UniqueViolationError as error:
        raise CommandError(f"The tenant {name!r} exists already: choose another name.") from error
    await session.publish()
    return tenant


async def find_tenant(connection: Any, name: str) -> asyncpg.Record:
    """Find and lock the tenant of a name. Raises CommandError if there is none."""
    row: asyncpg.Record | None = await _queries.find_tenant(connection, name=name)
    if row is None:
        raise no_tenant(name)
    return row


def no_tenant(name: str) -> CommandError:
    """Return the refusal of a name that is no tenant's."""
    return CommandError(f"There is no tenant {name!r}: see `neuronetz-gateway list-tenants`.")


async def list_tenants(
    session: Session,
    *,
    state: str | None = None,
    beginning: str = "",
    after: str | None = None,
    count: int | None = None,
) -> list[Tenant]:
    """List the tenants by name: those of a state and of a beginning of names, so many behind a name."""
    async with session.store.connection() as connection:
        found = _queries.list_tenants(
            connection, state=state, beginning=beginning, after=after or "", count=count
        )
        return [
            Tenant(row["name"], row["state"], row["timezone"], row["keys"], row["created_at"])
            async for row in found
        ]


@frozen
class Erased:
    """What was erased of a tenant, which goes on under another name; kept_rows are too old for it."""

    name: str
    prompts: int
    end_users: int
    addresses: int
    audit_rows: int
    kept_rows: int
    id: uuid.UUID


async def erase_tenant(session: Session, name: str) -> Erased:
    """Erase a tenant's name, prompts, end users and addresses for good, and revoke its keys; sums stay."""
    async with session.store.connection() as connection, connection.transaction():
        tenant = await find_tenant(connection, name)
        row = await _queries.erase_tenant(connection, tenant=tenant["id"], actor=session.actor)
    await session.publish()
    return Erased(id=tenant["id"], **row)


async def set_tenant_state(session: Session, name: str, state: str) -> uuid.UUID:
    """Disable or enable a tenant with all its keys; in force when this returns.

    A tenant that is in the state already is no change, and no event.
    """
    async with session.store.connection() as connection, connection.transaction():
        tenant = await find_tenant(connection, name)
        if tenant["erased_at"] is not None:
            raise CommandError(f"The tenant {name!r} was erased for good: create another with create-tenant.")
        if tenant["state"] != state:
            await _queries.set_tenant_state(connection, tenant=tenant["id"], state=state)
            old, new = {"state": tenant["state"]}, {"state": state}
            await session.audit(connection, _STATES[state], tenant=tenant["id"], old=old, new=new)
    await session.publish()
    found: uuid.UUID = tenant["id"]
    return found

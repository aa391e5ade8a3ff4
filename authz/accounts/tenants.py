"""Tenants: create, list, disable and enable."""

from __future__ import annotations

import re
import uuid
from datetime import datetime  # noqa: TC003 (msgspec and attrs read it)
from typing import TYPE_CHECKING, Annotated, Any, Final

import asyncpg
from attrs import frozen
from cyclopts import Parameter

import sql
from authz.accounts.session import Options, opened
from authz.admin import limit_options, output
from authz.admin.limit_options import LimitOptions
from authz.admin.streams import kill_all
from authz.errors import CommandError
from authz.types import Limits

if TYPE_CHECKING:
    from authz.accounts.session import Session

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)

Name = Annotated[str, Parameter(help="The tenant's name.")]
Kill = Annotated[bool, Parameter(help="Also end what runs right now.", negative="")]

_queries = sql.load("admin")


@frozen
class Tenant:
    """A tenant, as its operator sees it."""

    name: str
    state: str
    timezone: str
    keys: int
    created: datetime


async def create_tenant(
    session: Session, name: str, *, limits: Limits = Limits(), timezone: str = "UTC"
) -> uuid.UUID:
    """Create a tenant: Redis knows it before Postgres does, so that it never looks lost."""
    if not _NAME.fullmatch(name):
        sentence = (
            f"The tenant name {name!r} can't be used: take lower-case letters, digits and . _ -, at most 63."
        )
        raise CommandError(sentence)
    tenant = uuid.uuid4()
    try:
        async with session.store.connection() as connection, connection.transaction():
            columns = limit_options.columns(limits)
            await _queries.insert_tenant(connection, tenant=tenant, name=name, timezone=timezone, **columns)
            await session.audit(connection, "tenant_created", tenant=tenant, new=limits)
            await session.limiter.create(tenant, 1)
    except asyncpg.UniqueViolationError as error:
        raise CommandError(f"The tenant {name!r} exists already: choose another name.") from error
    await session.publish()
    return tenant


async def find_tenant(connection: Any, name: str) -> asyncpg.Record:
    """The tenant of this name, locked; raises CommandError if there is none."""
    row: asyncpg.Record | None = await _queries.find_tenant(connection, name=name)
    if row is None:
        raise CommandError(f"There is no tenant {name!r}: see `neuronetz-gateway list-tenants`.")
    return row


async def list_tenants(session: Session) -> list[Tenant]:
    """Every tenant, by name."""
    async with session.store.connection() as connection:
        return [
            Tenant(row["name"], row["state"], row["timezone"], row["keys"], row["created_at"])
            async for row in _queries.list_tenants(connection)
        ]


async def set_tenant_state(session: Session, name: str, state: str) -> uuid.UUID:
    """Disable or enable a tenant with all its keys; in force when this returns."""
    async with session.store.connection() as connection, connection.transaction():
        tenant = await find_tenant(connection, name)
        await _queries.set_tenant_state(connection, tenant=tenant["id"], state=state)
        await session.audit(
            connection, f"tenant_{state}", tenant=tenant["id"], old={"state": tenant["state"]}
        )
    await session.publish()
    found: uuid.UUID = tenant["id"]
    return found


async def create_tenant_command(
    *,
    name: Name,
    timezone: Annotated[str, Parameter(help="Whose days and months its budgets follow.")] = "UTC",
    limits: LimitOptions = LimitOptions(),
    options: Options = Options(),
) -> int:
    """Create a tenant: whoever owns keys and pays for them."""
    wanted, zone = limits.applied(Limits()), limit_options.timezone(timezone)
    async with opened(options.state) as session:
        await create_tenant(session, name, limits=wanted, timezone=zone)
    if options.json:
        output.show_json({"tenant": name})
    else:
        output.say(
            f"Tenant {name} is created. Next: neuronetz-gateway create-key --tenant {name} --name NAME"
        )
    return 0


async def list_tenants_command(*, options: Options = Options()) -> int:
    """List the tenants."""
    async with opened(options.state) as session:
        tenants = await list_tenants(session)
    if options.json:
        output.show_list(tenants)
    else:
        empty = "No tenant yet: create one with `neuronetz-gateway create-tenant --name NAME`."
        output.show_table(tenants, columns=("name", "state", "keys", "timezone", "created"), empty=empty)
    return 0


async def disable_tenant_command(
    *,
    tenant: Name,
    kill_running: Annotated[Kill, Parameter(name="--kill")] = False,
    options: Options = Options(),
) -> int:
    """Disable a tenant with all its keys, until it is enabled again."""
    async with opened(options.state) as session:
        found = await set_tenant_state(session, tenant, "disabled")
        killed = await kill_all(session.settings.control, tenant=found) if kill_running else 0
    output.show_state(f"Tenant {tenant} is disabled.", killed=killed, is_json=options.json, tenant=tenant)
    return 0


async def enable_tenant_command(*, tenant: Name, options: Options = Options()) -> int:
    """Enable a tenant again."""
    async with opened(options.state) as session:
        await set_tenant_state(session, tenant, "active")
    output.show_state(f"Tenant {tenant} is enabled.", killed=0, is_json=options.json, tenant=tenant)
    return 0

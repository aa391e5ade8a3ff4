"""Commands about tenants: create, list, disable, enable and erase."""

from __future__ import annotations

from typing import Annotated, Literal

from attrs import asdict, filters
from cyclopts import Parameter

from authz.accounts.scope import timezone as timezone_of
from authz.accounts.session import opened
from authz.accounts.tenants import create_tenant, erase_tenant, list_tenants, set_tenant_state
from authz.admin import output
from authz.admin.limit_options import LimitOptions
from authz.admin.options import ChangeOptions, Kill, ListOptions
from authz.admin.policy_options import PolicyOptions
from authz.stack.streams import kill_all
from authz.types import Limits, Policy

Name = Annotated[str, Parameter(help="The tenant's name.")]


async def create_tenant_command(
    *,
    name: Name,
    timezone: Annotated[str, Parameter(help="The time zone of its budgets' days and months.")] = "UTC",
    limits: LimitOptions = LimitOptions(),
    policy: PolicyOptions = PolicyOptions(),
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Create a tenant, which owns keys and pays for them.

    Example: neuronetz-gateway create-tenant --name acme --timezone Europe/Berlin --tokens-per-month 50000000
    """
    wanted, zone = limits.applied(Limits()), timezone_of(timezone)
    allowed = policy.of_tenant().applied(Policy())
    async with opened(options.state, actor=options.actor) as session:
        await create_tenant(session, name, limits=wanted, policy=allowed, timezone=zone)
    if options.json:
        output.show_json({"tenant": name, "state": "active", "timezone": zone})
    else:
        output.say(
            f"Tenant {name} is created. Next: neuronetz-gateway create-key --tenant {name} --name NAME"
        )
    return 0


async def list_tenants_command(
    *,
    state: Annotated[
        Literal["active", "disabled"] | None, Parameter(name="--in-state", help="Only tenants in this state.")
    ] = None,
    name: Annotated[str, Parameter(help="Only tenants whose name begins like this.")] = "",
    options: ListOptions = ListOptions(),
) -> int:
    """List the tenants.

    Example: neuronetz-gateway list-tenants --json
    """
    async with opened(options.state) as session:
        found = await list_tenants(
            session, state=state, beginning=name, after=options.after, count=options.limit + 1
        )
    tenants = output.page(found, lambda row: row.tenant, limit=options.limit)
    if options.json:
        output.show_list(tenants)
    else:
        empty = "No tenant yet: create one with `neuronetz-gateway create-tenant --name NAME`."
        output.show_table(tenants, columns=("tenant", "state", "keys", "timezone", "created"), empty=empty)
    return 0


async def disable_tenant_command(
    *,
    tenant: Name,
    kill_running: Annotated[Kill, Parameter(name="--kill")] = False,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Disable a tenant with all its keys, until it is enabled again.

    Example: neuronetz-gateway disable-tenant --tenant acme --kill
    """
    async with opened(options.state, actor=options.actor) as session:
        found = await set_tenant_state(session, tenant, "disabled")
        killed = await kill_all(session, tenant=found) if kill_running else 0
    facts = {"tenant": tenant, "state": "disabled"}
    output.show_state(f"Tenant {tenant} is disabled.", killed=killed, is_json=options.json, **facts)
    return 0


async def enable_tenant_command(*, tenant: Name, options: ChangeOptions = ChangeOptions()) -> int:
    """Enable a tenant again.

    Example: neuronetz-gateway enable-tenant --tenant acme
    """
    async with opened(options.state, actor=options.actor) as session:
        await set_tenant_state(session, tenant, "active")
    facts = {"tenant": tenant, "state": "active"}
    output.show_state(f"Tenant {tenant} is enabled.", killed=0, is_json=options.json, **facts)
    return 0


async def tenant_erase_command(
    tenant: Name,
    *,
    kill_running: Annotated[Kill, Parameter(name="--kill")] = False,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Erase a tenant's name, prompts, end users and addresses for good; what was billed stays.

    Example: neuronetz-gateway tenant erase acme --kill
    """
    async with opened(options.state, actor=options.actor) as session:
        erased = await erase_tenant(session, tenant)
        killed = await kill_all(session, tenant=erased.id) if kill_running else 0
    if options.json:
        counts = asdict(erased, filter=filters.exclude("name", "id"))
        output.show_json({"tenant": tenant, "new_tenant": erased.name, **counts, "killed": killed})
        return 0
    output.say(
        f"Tenant {tenant} is erased: {erased.prompts:,} prompts, {erased.end_users:,} end users, "
        f"{erased.addresses:,} addresses, the details of {erased.audit_rows:,} rows of the audit. "
        f"What was billed stays under the name {erased.name}."
    )
    if erased.kept_rows:
        output.say(
            f"{erased.kept_rows:,} rows are older than the release that can erase, and keep an address or a "
            "change until their day is dropped."
        )
    output.say(
        "Files of the journal have addresses and end users for GATEWAY_ADDRESS_DAYS, and backups as long as "
        "you keep them."
    )
    return 0

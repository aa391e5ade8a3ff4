"""Commands about limits: set them, and show how far they are used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from attrs import evolve
from cyclopts import Parameter

from authz.accounts.limits import Row, set_key_limits, set_tenant_limits, show
from authz.accounts.scope import Scope
from authz.accounts.session import opened
from authz.admin import limit_options, output
from authz.admin.difference import in_words
from authz.admin.limit_options import LimitOptions, ScopeOptions
from authz.admin.options import ChangeOptions, Options
from authz.admin.policy_options import PolicyOptions
from authz.errors import UsageError
from authz.types import Limits, Policy

TenantName = Annotated[str | None, Parameter(help="The tenant's name.")]
Prefix = Annotated[
    str | None, Parameter(help="The key's first 11 characters.", validator=limit_options.prefix)
]


async def set_limits_command(
    *,
    tenant: TenantName = None,
    prefix: Prefix = None,
    timezone: Annotated[str | None, Parameter(help="Time zone of a tenant's days and months.")] = None,
    limits: LimitOptions = LimitOptions(),
    scope: ScopeOptions = ScopeOptions(),
    policy: PolicyOptions = PolicyOptions(),
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Change the limits of a tenant or a key; the next request is held to them.

    Example: neuronetz-gateway set-limits --tenant acme --rpm 600 --allow 'num_ctx<=32768'
    """
    _one_of(tenant, prefix)
    if tenant and scope != ScopeOptions():
        raise UsageError(
            "--models, --cidr, --expires, --max-output and --log-prompts are set on a key: "
            "name it with --prefix."
        )
    if prefix and timezone:
        raise UsageError("--timezone is set on a tenant: name it with --tenant.")
    now = datetime.now(UTC)
    limits.applied(Limits())  # a value that can't be meant is refused before the stores are asked
    scope.applied(Scope(), now)
    (policy.of_tenant() if tenant else policy).applied(Policy())
    unreachable: list[str] = []
    async with opened(options.state, actor=options.actor) as session:
        if tenant:
            await set_tenant_limits(
                session, tenant, limits=limits.applied, policy=policy.applied, timezone=timezone
            )
        elif prefix:
            unreachable = await set_key_limits(
                session,
                prefix,
                limits=limits.applied,
                scope=lambda old: scope.applied(old, now),
                policy=policy.applied,
            )
        rows = await show(session, tenant=tenant, prefix=prefix, now=now)
    _print(rows, is_json=options.json)
    output.note_above(unreachable, is_json=options.json)
    if scope.log_prompts not in {None, limit_options.NONE}:
        output.note_unsealed(session.settings.prompt_key, is_json=options.json)
    return 0


async def show_limits_command(
    *, tenant: TenantName = None, prefix: Prefix = None, options: Options = Options()
) -> int:
    """Show limits with what is used, held by running requests and left of each.

    Example: neuronetz-gateway show-limits --tenant acme
    """
    _one_of(tenant, prefix)
    async with opened(options.state) as session:
        rows = await show(session, tenant=tenant, prefix=prefix, now=datetime.now(UTC))
    _print(rows, is_json=options.json)
    return 0


def _one_of(tenant: str | None, prefix: str | None) -> None:
    if (tenant is None) == (prefix is None):
        raise UsageError("Name either a tenant with --tenant or a key with --prefix.")


def _print(rows: list[Row], *, is_json: bool) -> None:
    if is_json:
        output.show_list(rows)
        return
    worded = []
    for row in rows:
        name, value = in_words(row.limit, row.value)
        worded.append(evolve(row, limit=name, value=value))
    columns = ("scope", "limit", "value", "used", "held", "left", "reset")
    output.show_table(worded, columns=columns, empty="There are no limits.")

"""Commands about the names by which clients ask for models."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from authz.accounts.aliases import Alias as AliasRow
from authz.accounts.aliases import list_aliases, remove_alias, set_alias
from authz.accounts.session import opened
from authz.admin import output
from authz.admin.options import ChangeOptions, ListOptions, Options

Alias = Annotated[str, Parameter(name="ALIAS", help="A name, or the beginning of names and *: claude-*.")]
Tenant = Annotated[str | None, Parameter(name="--tenant", help="Only for this tenant.")]


async def alias_set_command(
    alias: Alias,
    model: Annotated[str, Parameter(name="MODEL", help="The model that runs, such as llama3.3:70b.")],
    /,
    *,
    tenant: Tenant = None,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Let clients ask for a model by another name; in force within a second.

    The answer names what they asked for, the ledger both; limits and allowlists are those of the model.

    Example: neuronetz-gateway alias set 'claude-*' qwen3:32b --tenant acme
    """
    async with opened(options.state, actor=options.actor) as session:
        await set_alias(session, alias, model, tenant=tenant)
    return _say(f"{alias} means {model}", options, alias=alias, model=model, tenant=tenant)


async def alias_remove_command(
    alias: Alias, /, *, tenant: Tenant = None, options: ChangeOptions = ChangeOptions()
) -> int:
    """Let a name mean nothing but a model that is called so; in force within a second.

    Example: neuronetz-gateway alias remove 'claude-*' --tenant acme
    """
    async with opened(options.state, actor=options.actor) as session:
        await remove_alias(session, alias, tenant=tenant)
    return _say(f"{alias} is no alias any more", options, alias=alias, tenant=tenant)


async def alias_list_command(
    *,
    tenant: Annotated[str | None, Parameter(help="Only what holds for this tenant alone.")] = None,
    options: ListOptions = ListOptions(),
) -> int:
    """List the aliases, those for all tenants first.

    Example: neuronetz-gateway alias list
    """
    async with opened(options.state) as session:
        rows = [row for row in await list_aliases(session) if tenant in {None, row.tenant}]
    rest = output.behind(rows, _name, after=options.after)
    found = output.page(rest, _name, limit=options.limit)
    if options.json:
        output.show_list(found)
    else:
        empty = "No alias yet: set one with `neuronetz-gateway alias set 'claude-*' MODEL`."
        output.show_table(found, columns=("tenant", "alias", "model"), empty=empty)
    return 0


def _name(row: AliasRow) -> str:
    """Return what --after takes; an alias has no comma before its own."""
    return f"{row.tenant or ''},{row.alias}"


def _say(fact: str, options: Options, *, tenant: str | None, **facts: str) -> int:
    if options.json:
        output.show_json({**facts, "tenant": tenant})
    else:
        output.say(f"{fact}{'' if tenant is None else f' to tenant {tenant}'}.")
    return 0

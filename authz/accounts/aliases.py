"""Set, remove and list the names by which clients ask for models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

import sql
from authz.accounts.tenants import find_tenant
from authz.errors import CommandError, UsageError

if TYPE_CHECKING:
    from uuid import UUID

    from authz.accounts.session import Session

_PATTERN: Final = re.compile(r"[!-)+-~]{0,255}(?:[!-)+-~]|\*)", re.ASCII)
"""Printable, without spaces, and a star at the end alone."""

_MODEL: Final = re.compile(r"[A-Za-z0-9._:/-]{1,256}", re.ASCII)

_queries = sql.load("aliases")


@frozen
class Alias:
    """A name, or the beginning of names and a star, and the model that runs; tenant None is every one."""

    tenant: str | None
    alias: str
    model: str


async def set_alias(session: Session, alias: str, model: str, *, tenant: str | None) -> None:
    """Let a name mean a model, to a tenant or to all; it may have meant another one before."""
    _check(alias)
    if not _MODEL.fullmatch(model):
        raise UsageError(f"{model!r} is no model's name: write it as `list-backends` shows it, without *.")
    async with session.store.connection() as connection, connection.transaction():
        owner = await _owner(connection, tenant)
        before = await _queries.set_alias(connection, tenant=owner, pattern=alias, model=model)
        if before == model:
            return
        old = None if before is None else {"alias": alias, "model": before}
        new = {"alias": alias, "model": model}
        await session.audit(connection, "alias_set", tenant=owner, old=old, new=new)


async def remove_alias(session: Session, alias: str, *, tenant: str | None) -> None:
    """Let a name mean nothing but a model that is called so. Raises CommandError if it is no alias."""
    _check(alias)
    async with session.store.connection() as connection, connection.transaction():
        owner = await _owner(connection, tenant)
        model = await _queries.remove_alias(connection, tenant=owner, pattern=alias)
        if model is None:
            whose = "for all tenants" if tenant is None else f"of tenant {tenant}"
            raise CommandError(f"There is no alias {alias!r} {whose}: see `neuronetz-gateway alias list`.")
        await session.audit(connection, "alias_removed", tenant=owner, old={"alias": alias, "model": model})


async def list_aliases(session: Session) -> list[Alias]:
    """List every alias, those of all tenants first."""
    async with session.store.connection() as connection:
        return [
            Alias(row["tenant"], row["pattern"], row["model"])
            async for row in _queries.shown_aliases(connection)
        ]


def _check(alias: str) -> None:
    if not _PATTERN.fullmatch(alias):
        sentence = (
            f"{alias!r} can't be an alias: take at most 256 printable characters without spaces, "
            "and * at the end alone, like claude-*."
        )
        raise UsageError(sentence)


async def _owner(connection: Any, tenant: str | None) -> UUID | None:
    if tenant is None:
        return None
    owner: UUID = (await find_tenant(connection, tenant))["id"]
    return owner

"""Create one tenant with one key at a stack's first start, so that it can be used at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import field, frozen

from authz.accounts.keys import create_key
from authz.accounts.session import opened
from authz.accounts.tenants import create_tenant, list_tenants

if TYPE_CHECKING:
    from pathlib import Path

_TENANT: Final = "demo"
_KEY: Final = "first"


@frozen
class First:
    """A tenant of the stack, and the secret of its key where it was made just now."""

    tenant: str
    secret: str | None = field(default=None, repr=False)


async def first_key(state: Path) -> First:
    """Make the first tenant and key where there is no tenant; a half-made first one is finished."""
    async with opened(state) as session:
        tenants = await list_tenants(session)
        if not tenants:
            await create_tenant(session, _TENANT)
        elif len(tenants) > 1 or tenants[0].tenant != _TENANT or tenants[0].keys:
            return First(tenants[0].tenant)
        created = await create_key(session, tenant=_TENANT, name=_KEY)
    return First(_TENANT, created.key)

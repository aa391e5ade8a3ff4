"""The tenant that the proofs are made as: no other pays for them, and nothing of it works afterwards."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from attrs import frozen

import sql
from authz import postgres
from authz.accounts.keys import create_key, list_keys, set_key_state
from authz.accounts.scope import Scope
from authz.accounts.tenants import create_tenant, list_tenants, set_tenant_state
from authz.errors import CommandError
from authz.types import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from authz.accounts.keys import CreatedKey
    from authz.accounts.session import Session

TENANT: Final = "doctor-prove"
"""Its name marks all that the proofs use: in `usage`, `audit` and the ledger."""

_queries = sql.load("doctor")


@frozen
class Throwaway:
    """The tenant, for as long as its proofs run."""

    session: Session
    run: str
    """Tells the keys of this run from those of others."""

    async def key(self, name: str, *, limits: Limits = Limits(), scope: Scope = Scope()) -> CreatedKey:
        """Create a key; it is revoked with the others at the end."""
        own = f"{name}-{self.run}"
        return await create_key(self.session, tenant=TENANT, name=own, limits=limits, scope=scope)


@asynccontextmanager
async def throwaway(session: Session) -> AsyncIterator[Throwaway]:
    """Make the tenant, or enable it again; disable it at the end, whatever becomes of the proofs.

    What a run that was killed has left is cleared away first. Two runs at a time are refused.
    """
    turn = await postgres.connect(session.settings.database_url)
    try:
        if not await _queries.take_turn(turn):
            raise CommandError("Another `doctor --prove` runs on this database: wait for its end.")
        try:
            if any(tenant.tenant == TENANT for tenant in await list_tenants(session)):
                await _clear(session)
                await set_tenant_state(session, TENANT, "active")
            else:
                await create_tenant(session, TENANT)
            yield Throwaway(session, secrets.token_hex(4))
        finally:
            if any(tenant.tenant == TENANT for tenant in await list_tenants(session)):
                await _clear(session)
    finally:
        await turn.close()


async def _clear(session: Session) -> None:
    """Disable the tenant, by which all of its keys end at once, and revoke each key for good."""
    await set_tenant_state(session, TENANT, "disabled")
    for key in await list_keys(session, TENANT):
        await set_key_state(session, key.prefix, "revoked")

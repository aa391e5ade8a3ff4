"""A change commits in Postgres first, then its version rises in Redis, then the command returns.

Whoever dies in between leaves a version that is committed and not published; metering repeats it.
So Redis is never ahead, unless Postgres has gone back in time: then Redis is outbid, or a key whose
last change Postgres has lost could never be used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from authz.limiter.limiter import Limiter
    from authz.store import Store
    from authz.types import Identity

log = structlog.get_logger()


async def publish(store: Store, limiter: Limiter) -> int:
    """Raise every version that Redis may not know yet; returns how many were raised."""
    raised = 0
    for tenant, key, version in await store.unpublished_versions():
        async with limiter.beside_others():
            await limiter.raise_versions(tenant, {key: version})
            await store.mark_published(tenant, key, version)
            raised += 1
    return raised


async def agree(store: Store, limiter: Limiter, identity: Identity) -> bool:
    """Publish the versions of an identity that was just read; False if it must be read again."""
    tenant, key = identity.tenant, identity.key
    await limiter.raise_versions(tenant, {None: identity.tenant_version, key: identity.key_version})
    known = await limiter.versions(tenant, key)
    if known is None or (known[0] <= identity.tenant_version and known[1] <= identity.key_version):
        return True
    if await store.outbid_versions(tenant, key, known=known):
        log.error("authz.version_behind", tenant=str(tenant), key=str(key), known=known)
    return False

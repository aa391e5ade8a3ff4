"""A change commits in Postgres first, then its version rises in Redis, then the command returns.

Whoever dies in between leaves a version that is committed and not published; metering repeats it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from authz.limiter.limiter import Limiter
    from authz.store import Store


async def publish(store: Store, limiter: Limiter) -> int:
    """Raise every version that Redis may not know yet; returns how many there were."""
    versions = await store.unpublished_versions()
    for tenant, key, version in versions:
        await limiter.raise_versions(tenant, {key: version})
        await store.mark_published(tenant, key, version)
    return len(versions)

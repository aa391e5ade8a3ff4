"""The size of a tenant costs it seconds after a loss of Redis, and other tenants nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

from authz.limiter import keyspace
from tests.bench.bench_rebuild import Lossy

KEYS, DAYS = 2000, 40
LONGEST_MS = 100
"""Twenty times the aim, for busy machines; all in one script took 2,900."""


async def test_tenant_with_thousands_of_keys_comes_back(database: str, redis_url: str) -> None:
    """L6: no script grows with the tenant; every key's version and windows that can still pay are there."""
    async with Lossy.opened(database, redis_url) as lossy:
        await lossy.fill(KEYS, DAYS)
        await lossy.rebuild()
        assert await lossy.longest_ms() < LONGEST_MS
        rows = await lossy.owner.fetch("SELECT id FROM keys WHERE tenant_id = $1", lossy.tenant)
        fields: dict[Any, Any] = await lossy.redis.hgetall(keyspace.tenant(lossy.tenant))
        calls = (await lossy.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        await lossy.other.limiter.prune(lossy.tenant, date(2100, 1, 1))
        steps = (await lossy.redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - calls
    assert steps > len(fields) // 1000
    versions = {f"v:{row['id']}".encode() for row in rows}
    assert KEYS == len(versions)
    assert versions < set(fields)
    for scope in ("t", *(row["id"] for row in rows)):
        windows = [name for name in fields if name.startswith(f"u:{scope}:".encode())]
        # In all, the month, perhaps the one before; three days, or two where midnight came meanwhile.
        assert 4 <= len(windows) <= 6
        assert {b"7"} == {fields[name] for name in windows}

"""Which Redis may hold the ceilings: it forgets nothing by itself, takes writes, knows our commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from authz.errors import LimiterUnavailable
from authz.limiter import scripts

if TYPE_CHECKING:
    from authz.limiter.connection import Link

OLDEST: Final = (6, 2)


async def prepare(link: Link) -> None:
    """Learn the run of a new connection's Redis and load the scripts; refuses one that can't be trusted."""
    info = _read((await scripts.answer(link.send("INFO"))).decode())
    reason = _distrust(info)
    if reason is not None:
        raise LimiterUnavailable(reason)
    link.run_id = info["run_id"]
    await scripts.load(link)


def _distrust(info: dict[str, str]) -> str | None:
    version = info.get("redis_version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        return f"Redis {version} is too old: run Redis 6.2, Valkey 7.2 or newer."
    if info.get("role") != "master":
        return "Redis is a replica and takes no writes: point REDIS_URL at its master."
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        return f"Redis may evict budgets ({policy}): set its maxmemory-policy to noeviction."
    return None if info.get("run_id") else "Redis does not say which run it is: connect without a proxy."


def _read(info: str) -> dict[str, str]:
    """The fields of INFO."""
    pairs = (line.partition(":") for line in info.splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}

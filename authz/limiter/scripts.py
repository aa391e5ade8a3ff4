"""The Lua scripts, and the Redis that may run them.

A script is known to Redis by its digest, loaded on every connection, and sent again if it was
forgotten. The Redis must be one that keeps what it is given: no eviction, no replica, new enough.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from authz.limiter.connection import IN_CLUSTER, NO_CLUSTER, Script, answer

if TYPE_CHECKING:
    from authz.limiter.connection import Link

OLDEST: Final = (6, 2)

LAYOUT: Final = 2
"""What is kept in another layout is unread, as if it were of another run: tenants are rebuilt."""


def _load(name: str) -> Script:
    """Read a script of this package, behind the prelude of all of them."""
    folder = files("authz.limiter") / "lua"
    text = "\n".join((folder / part).read_text(encoding="utf-8") for part in ("prelude.lua", f"{name}.lua"))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


ADMIT, SETTLE, NOTICE, REBUILD, RAISE, CREATE, PRUNE, READ = SCRIPTS = tuple(
    _load(name) for name in ("admit", "settle", "notice", "rebuild", "raise", "create", "prune", "read")
)


async def prepare(link: Link) -> None:
    """Note the run of a new connection's Redis and load the scripts.

    Raises LimiterUnavailable, with the reason, if this Redis can't be trusted with limits.
    """
    await trust(link)
    for script in SCRIPTS:
        await answer(link.send("SCRIPT", "LOAD", script.text))


async def trust(link: Link) -> None:
    """Note the run of a connection's Redis, which may change: a master without replicas takes a new one.

    Raises LimiterUnavailable, with the reason, if this Redis can't be trusted with limits.
    """
    info = _fields((await answer(link.send("INFO"))).decode())
    reason = _distrust(info, is_clustered=link.server.is_clustered)
    if reason is not None:
        raise link.server.naming(reason)
    link.server.replicas = int(info.get("connected_slaves", 0))
    link.run_id = _run(info)


def _run(info: dict[str, str]) -> str:
    """Name the run of a Redis, short enough for names of keys.

    The process alone is not it: one that was replaced and is master again has lost writes meanwhile.
    """
    all_three = f"{info['run_id']} {info.get('master_replid', '')} {LAYOUT}"
    return hashlib.sha256(all_three.encode()).hexdigest()[:16]


def _distrust(info: dict[str, str], *, is_clustered: bool) -> str | None:
    version = info.get("redis_version", "")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        return f"Redis {version} is too old: run Redis 6.2, Valkey 7.2 or newer."
    if (info.get("cluster_enabled") == "1") is not is_clustered:
        return NO_CLUSTER if is_clustered else IN_CLUSTER
    if info.get("role") != "master":
        return "Redis is a replica and takes no writes: point REDIS_URL at its master."
    policy = info.get("maxmemory_policy")
    if policy != "noeviction":
        return f"Redis may evict budgets ({policy}): set its maxmemory-policy to noeviction."
    return None if info.get("run_id") else "Redis does not say which run it is: connect without a proxy."


def _fields(info: str) -> dict[str, str]:
    """Parse the answer to INFO."""
    pairs = (line.partition(":") for line in info.splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}

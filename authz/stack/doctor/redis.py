"""Redis: whether it may be trusted with limits, takes writes, and what it knows of the nodes' metering.

Of a cluster each master is asked, and whether there is a replica to take its place.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.errors import LimiterUnavailable, SettingsError
from authz.limiter.limiter import Limiter
from authz.limiter.masters import clock_of
from authz.stack.doctor import clocks
from authz.stack.doctor.finding import Finding, fail, summed, warn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from authz.stack.doctor.clocks import Clock

CHECK: Final = "redis"


@frozen
class Facts:
    """Redis as it was seen; `lags_ms` is how far behind each node's metering is, None if it is silent.

    `bare` are the masters of a cluster that have no replica.
    """

    clocks: tuple[Clock, ...]
    lags_ms: dict[UUID, int | None]
    bare: tuple[str, ...] = ()


async def gather(url: str, nodes: Iterable[UUID]) -> Facts | str:
    """Ask Redis as authz does; the reason if it can't be asked, or must not be trusted."""
    try:
        limiter = await Limiter.connect(url)
    except (LimiterUnavailable, SettingsError) as error:
        return str(error)
    try:
        await limiter.probe()
        links = limiter.links()
        return Facts(
            tuple([await clocks.read(str(link.server), partial(clock_of, link)) for link in links]),
            {node: await limiter.lag_ms(node) for node in nodes},
            tuple(
                str(link.server) for link in links if link.server.is_clustered and not link.server.replicas
            ),
        )
    except LimiterUnavailable as error:
        return str(error)
    finally:
        await limiter.close()


def judge(facts: Facts | str) -> list[Finding]:
    """Judge the settings of Redis, which it was asked for when it was connected."""
    if isinstance(facts, str):
        return [fail(CHECK, facts)]
    found = [
        warn(CHECK, f"{name} has no replica: should it be lost, its tenants are refused until it is back.")
        for name in facts.bare
    ]
    count = len(facts.clocks)
    fine = "It is" if count == 1 else f"Each of {count} masters is"
    return summed(CHECK, found, f"{fine} noeviction, new enough, a master, and takes writes.")

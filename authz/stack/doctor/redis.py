"""Redis: whether it may be trusted with limits, takes writes, and what it knows of the nodes' metering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.errors import LimiterUnavailable, SettingsError
from authz.limiter.limiter import Limiter
from authz.stack.doctor import clocks
from authz.stack.doctor.finding import Finding, fail, ok

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from authz.stack.doctor.clocks import Clock

CHECK: Final = "redis"


@frozen
class Facts:
    """Redis as it was seen; `lags_ms` is how far behind each node's metering is, None if it is silent."""

    clock: Clock
    lags_ms: dict[UUID, int | None]


async def gather(url: str, nodes: Iterable[UUID]) -> Facts | str:
    """Ask Redis as authz does; the reason if it can't be asked, or must not be trusted."""
    try:
        limiter = await Limiter.connect(url)
    except (LimiterUnavailable, SettingsError) as error:
        return str(error)
    try:
        await limiter.probe()
        clock = await clocks.read("Redis", limiter.now)
        return Facts(clock, {node: await limiter.lag_ms(node) for node in nodes})
    except LimiterUnavailable as error:
        return str(error)
    finally:
        await limiter.close()


def judge(facts: Facts | str) -> list[Finding]:
    """Judge the settings of Redis, which it was asked for when it was connected."""
    if isinstance(facts, str):
        return [fail(CHECK, facts)]
    return [ok(CHECK, "It is noeviction, new enough, a master, and takes writes.")]

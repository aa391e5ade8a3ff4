"""What two releases share in Redis while one replaces the other."""

from __future__ import annotations

from uuid import UUID

from authz.limiter.limiter import Limiter
from authz.limiter.scripts import _run
from authz.types import Limits
from tests.authz.limiting import Desk
from tests.redis_cluster import client

LAYOUT = {
    "nz:{T}": "b:K b:t epoch u:K:d:DAY u:K:m:MONTH u:K:t u:t:d:DAY u:t:m:MONTH u:t:t "
    "v v:K v:L w:K:d:DAY w:K:m:MONTH w:K:t w:t:d:DAY w:t:m:MONTH w:t:t",
    "nz:{T}:R:held": "ID h:K:d:DAY h:K:m:MONTH h:K:t h:t:d:DAY h:t:m:MONTH h:t:t",
    "nz:{T}:R:open": "ID",
    "nz:{T}:R:slots": "ID",
    "nz:{T}:R:slots:K": "ID",
    "nz:{T}:closed": "CLOSED",
}


async def test_two_releases_agree_on_redis(limiter: Limiter, redis_url: str) -> None:
    """authz of two releases runs side by side only where both have these names: another one is a loss of
    Redis to each, and every tenant is refused until one of them has ended. Whoever changes this says in
    CHANGELOG.md that the upgrade stops authz for a moment, and counts `scripts.LAYOUT` up.
    """
    rates = Limits(requests_per_minute=100, tokens_per_minute=10_000)
    async with client(redis_url) as redis:
        desk = Desk(limiter, redis)
        await desk.open(rates, rates)
        closed, running = await desk.reserve(), await desk.reserve()
        await desk.settle({closed: 7})
        names = {
            str(desk.tenant): "T",
            str(desk.keys[0]): "K",
            str(desk.keys[1]): "L",
            limiter.run(desk.tenant): "R",
            str(running): "ID",
            str(closed): "CLOSED",
            desk.now.date().isoformat(): "DAY",
            desk.now.date().isoformat()[:7]: "MONTH",
        }
        found = {_named(name, names): content for name, content in (await desk.content()).items()}

    assert LAYOUT == {
        name: " ".join(sorted(_named(one[0] if isinstance(one, tuple) else one, names) for one in content))
        for name, content in found.items()
        if isinstance(content, dict | list)
    }
    assert "f8a0e12cd924cf78" == _run({"run_id": "a", "master_replid": "b"})


def _named(name: bytes | UUID, names: dict[str, str]) -> str:
    """Replace what differs from run to run."""
    text = name.decode() if isinstance(name, bytes) else str(name)
    for value, short in names.items():
        text = text.replace(value, short)
    return text

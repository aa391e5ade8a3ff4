"""Each budget counts what its own scope has used, and holds, in its own window."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from authz.limiter import keyspace
from authz.limiter.admission import Admitted, LimitReached
from authz.limiter.limiter import Limiter
from authz.types import Limits
from tests.authz.limiting import Desk
from tests.redis_cluster import client, on_both

pytestmark = on_both

DAY = timedelta(days=1)
LIMIT = 10_000
LAST_DAY, LAST_MONTH, BEFORE = (16, 32), (4, 8), (1, 2)
"""Used by the first key and by the second; a hundred times as much is held, all of it in its own bits."""

SUMS = {
    "day": ("tokens_per_day", (LAST_DAY,)),
    "month": ("tokens_per_month", (LAST_DAY, LAST_MONTH)),
    "total": ("tokens_total", (LAST_DAY, LAST_MONTH, BEFORE)),
}


@pytest.fixture
async def desk(limiter: Limiter, redis_url: str) -> AsyncIterator[Desk]:
    """Two keys that have used, and hold, something of a month, of a day of the next one and of today."""
    async with client(redis_url) as redis:
        desk = Desk(limiter, redis)
        await desk.open()
        for pause, tokens in ((0 * DAY, BEFORE), (6 * DAY, LAST_MONTH), (DAY, LAST_DAY)):
            desk.pass_time(pause)
            for key, used in zip(desk.keys, tokens, strict=True):
                await desk.settle({await desk.reserve(key=key): used})
                await desk.reserve(key=key, bound_in=90 * used, wanted=10 * used)
        yield desk


@pytest.mark.parametrize("scope", ["tenant", "key"])
@pytest.mark.parametrize("name", SUMS)
async def test_a_budget_counts_its_own_window(desk: Desk, name: str, scope: str) -> None:
    """L3: what another scope or window has used and holds neither counts nor is left out."""
    option, amounts = SUMS[name]
    used = sum(first + (second if scope == "tenant" else 0) for first, second in amounts)
    desk.limits[desk.tenant if scope == "tenant" else desk.key] = Limits(**{option: LIMIT})
    left = LIMIT - used
    ended = LimitReached(name, scope, used, LIMIT, 0, held=100 * used, needed=left + 1)
    assert ended == await desk.admit(desk.ask(bound_in=left, wanted=1))
    free = left - 100 * used
    held = LimitReached(f"held_{name}", scope, used, LIMIT, 0, held=100 * used, needed=free + 1)
    assert held == await desk.admit(desk.ask(bound_in=free, wanted=1))
    assert isinstance(await desk.admit(desk.ask(bound_in=free - 1, wanted=1)), Admitted)


async def test_each_window_holds_what_was_reserved_in_it(desk: Desk) -> None:
    """L3, B3: the sums beside the reservations are those of the reservations."""
    sums: dict[str, int] = {}
    for row in desk.admitted.values():
        if row.request_id not in desk.ledger:
            for scope in ("t", str(row.key)):
                for window in ("t", f"m:{row.month:%Y-%m}", f"d:{row.day}"):
                    name = f"h:{scope}:{window}"
                    sums[name] = sums.get(name, 0) + row.held_input + row.held_output
    held = await desk.redis.hgetall(keyspace.held(desk.tenant, desk.limiter.run(desk.tenant)))
    assert sums == {name.decode(): int(held[name]) for name in held if name.startswith(b"h:")}
    assert 3 * (3 + 2 + 1) == len(sums)  # of three scopes, three days, two months and the total

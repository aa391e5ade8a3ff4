"""The short version of `just chaos`: every kind of blow, few of each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.chaos import chaos
from tests.chaos.plan import SHORT, SHORT_S, WHOLE, Blow, planned
from tests.chaos.world import World, imitated, running

SEED = 8


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway whose journal rolls every few requests."""
    with imitated() as behind, running(behind, "32KiB") as started:
        yield started


@pytest.mark.timeout(240)
async def test_the_bill_survives(world: World) -> None:
    """B1, B2, B3, B4, L3, L4: whatever dies, what ran is billed once, and every book says the same."""
    aftermath = await chaos(world, seed=SEED, span_s=SHORT_S, blows=SHORT)
    assert [] == [str(figure) for figure in aftermath.table.figures if not figure.is_right]
    assert [] == aftermath.wrongs


def test_plan_is_the_same_for_a_seed() -> None:
    """A seed that failed can be tried again: the same blows at the same times, all that were wished for."""
    plan = planned(SEED, 420, blows=WHOLE)
    assert plan == planned(SEED, 420, blows=WHOLE)
    counts = {blow: sum(event.blow is blow for event in plan) for blow in Blow}
    following = {Blow.RELEASE: WHOLE[Blow.HOLD], Blow.FREE: WHOLE[Blow.FULL], Blow.CADDY: 5}
    assert {**WHOLE, **following} == counts


def test_short_plan_ends_with_a_flush() -> None:
    """Reservations that never began are forgotten with Redis, so that nothing waits for a deadline."""
    blows = [event.blow for event in planned(SEED, SHORT_S, blows=SHORT)]
    assert blows.index(Blow.REDIS) > max(at for at, blow in enumerate(blows) if blow is Blow.CADDY)


def test_short_plan_lets_metering_drop_days() -> None:
    """Metering drops days when it starts: it dies once more after they have grown old."""
    blows = [event.blow for event in planned(SEED, SHORT_S, blows=SHORT)]
    assert Blow.METERING in blows[blows.index(Blow.AGE) :]


def test_plan_spares_the_supervisor() -> None:
    """No child dies five times within 30 s, at which its supervisor would give up."""
    for blow in (Blow.METERING, Blow.AUTHZ, Blow.CADDY, Blow.POSTGRES):
        times = [event.at_s for event in planned(SEED, 420, blows=WHOLE) if event.blow is blow]
        assert all(later - earlier > 30 for earlier, later in zip(times, times[4:], strict=False))

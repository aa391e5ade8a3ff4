"""The short version of `just chaos`: the bill survives whatever dies, whatever answers consist of."""

import pytest

from tests.chaos.chaos import chaos
from tests.chaos.plan import SHORT, SHORT_S
from tests.chaos.world import real, running

SEED = 8


@pytest.mark.timeout(240)
async def test_the_bill_survives() -> None:
    """B1, B2, B3, B4, L3, L4: of thinking, tool calls and several tokens a frame, heard out or cut."""
    with real() as behind, running(behind, "32KiB") as world:
        aftermath = await chaos(world, seed=SEED, span_s=SHORT_S, blows=SHORT)
    assert [] == [str(figure) for figure in aftermath.table.figures if not figure.is_right]
    assert [] == aftermath.wrongs

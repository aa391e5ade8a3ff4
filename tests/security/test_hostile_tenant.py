"""The short version of `just hostile-tenant`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backend.app import backend
from tests.backend.serving import served
from tests.gateway import MODELS, Gateway, running
from tests.security.hostile_tenant import attacked
from tests.security.oddities import ODDITIES

SPAN_S = 8.0


@pytest.fixture
def alone() -> Iterator[Gateway]:
    """A gateway that no other test has taught anything."""
    with served(backend(*MODELS)) as url, running(url, OLLAMA_URL=url) as started:
        yield started


@pytest.mark.timeout(120)
async def test_no_tenant_moves_another(alone: Gateway) -> None:
    """B5: whatever one tenant sends, no price, figure, bound or refusal of another changes by 1 %."""
    attack = await attacked(alone, span_s=SPAN_S, is_new_seen=False)
    assert attack.sent >= len(ODDITIES)
    assert [] == attack.changes

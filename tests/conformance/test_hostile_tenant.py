"""The short version of `just hostile-tenant`."""

from collections.abc import Iterator

import pytest

from tests.gateway import Gateway, running
from tests.ollama.server import running_ollama
from tests.security.hostile_tenant import AT_ONCE, attacked

SPAN_S = 8.0


@pytest.fixture
def alone() -> Iterator[Gateway]:
    """A gateway that no other test has taught anything."""
    with running_ollama(parallel=AT_ONCE) as ollama, running(ollama.url, OLLAMA_URL=ollama.url) as started:
        yield started


@pytest.mark.timeout(180)
async def test_no_tenant_moves_another(alone: Gateway) -> None:
    """B5: whatever one tenant sends, no price, figure, bound or refusal of another changes by 1 %."""
    attack = await attacked(alone, span_s=SPAN_S, is_new_seen=False, is_own=False)
    assert attack.sent >= 20
    assert [] == attack.changes


@pytest.mark.timeout(180)
async def test_a_move_would_be_seen(alone: Gateway) -> None:
    """A tenant moves its own figures with the same requests: else nothing would have been compared."""
    attack = await attacked(alone, span_s=SPAN_S, is_new_seen=False, is_own=True)
    assert any(change.startswith("known output_tokens_per_") for change in attack.changes), attack.changes

"""The short version of `just stranger`."""

import pytest

from tests.gateway import running
from tests.ollama.server import running_ollama
from tests.security.stranger import PROXY, attacked

SPAN_S = 4.0


@pytest.mark.timeout(180)
def test_a_stranger_gets_nothing() -> None:
    """Whatever is sent without an account is refused and reaches no backend; a client is served meanwhile."""
    with (
        running_ollama(parallel=4) as ollama,
        running(ollama.url, OLLAMA_URL=ollama.url, GATEWAY_TRUSTED_PROXIES=PROXY) as gateway,
    ):
        outcome = attacked(gateway, ollama, span_s=SPAN_S)
    assert [] == outcome.complaints()
    kinds = {kind for kind, _ in outcome.answers}
    assert {"invented", "names", "slow", "stalled"} == kinds
    assert {("invented", 401), ("invented", 429)} <= outcome.answers.keys()

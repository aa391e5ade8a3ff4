"""The short version of `just stranger`."""

import pytest

from authz.identity.sources import BURST, EVERYBODY, PER_S
from tests.gateway import running
from tests.ollama.server import running_ollama
from tests.security.stranger import PROXY, attacked

SPAN_S = 4.0
ENDED_WITHIN_S = 60.0
DECIDERS = 2
_, FACTOR = EVERYBODY


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
    # However many keys it invents, Postgres is asked for those that the allowance has room for.
    looked_up = outcome.answers["invented", 401]
    assert 0 < looked_up <= DECIDERS * FACTOR * (BURST + PER_S * ENDED_WITHIN_S)
    assert ("invented", 429) in outcome.answers or looked_up < DECIDERS * FACTOR * BURST

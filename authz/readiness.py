"""Say what keeps the gateway from serving, a sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authz.errors import LimiterUnavailable, StoreUnavailable
from authz.nodes import LAG_MS

if TYPE_CHECKING:
    from uuid import UUID

    from authz.backends.rendered import Rendered
    from authz.decision.verify import Verifier
    from authz.limiter.limiter import Limiter


async def missing(verifier: Verifier, rendered: Rendered) -> list[str]:
    """Return what is missing: of the stores, of metering, and of the backends."""
    found: list[str] = []
    nodes: frozenset[UUID] = frozenset()
    try:
        nodes = await verifier.store.nodes()
        await verifier.store.probe()
    except StoreUnavailable as error:
        found.append(str(error))
    try:
        await verifier.limiter.probe()
        if not await _is_vouched(verifier.limiter, nodes):
            found.append(
                "No metering vouches for a journal: check that metering and Caddy run and keep up, "
                "and that the journal is at its path."
            )
    except LimiterUnavailable as error:
        found.append(str(error))
    if not verifier.inventory.is_live:
        found.append("No backend answers: check OLLAMA_URL or OLLAMA_BACKENDS and that Ollama runs.")
    difference = rendered.difference(verifier.inventory.backends)
    if difference is not None:
        found.append(difference)
    if not verifier.rebuilder.is_idle:
        found.append("Counters are being restored from Postgres: wait a few seconds.")
    return found


async def _is_vouched(limiter: Limiter, nodes: frozenset[UUID]) -> bool:
    lags = [await limiter.lag_ms(node) for node in nodes]
    return any(lag is not None and lag <= LAG_MS for lag in lags)

"""Measure authz for Prometheus: its decisions as they are made, and its state at every scrape.

Every label is one of our own words (an outcome, a reason, a backend's name), never anything that a
client has sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from authz import supervise
from authz.backends.tables import Tables
from authz.decision.refusals import Reason
from authz.errors import LimiterUnavailable
from authz.prometheus import add_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from authz.decision.verify import Verifier
    from authz.limiter.limiter import Limiter

GRANTED: Final = "granted"
DENIED: Final = "denied"

_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
"""Up to what Caddy waits for a decision."""


class Metrics:
    """One process's registry; its counters are looked up once, not by labels at every request."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        add_process(registry)
        decisions = Counter(
            "gateway_decisions", "Requests decided.", ("outcome", "reason"), registry=registry
        )
        self.granted = decisions.labels(GRANTED, "")
        # All reasons from the start: what has never happened is 0, and an alarm on it can be written.
        self.denied = {reason: decisions.labels(DENIED, reason) for reason in Reason}
        self.seconds = Histogram(
            "gateway_decision_seconds", "From an Ask to its answer.", buckets=_BUCKETS_S, registry=registry
        )

    def watch(self, verifier: Verifier) -> None:
        """Read the state of this Verifier at every scrape."""
        self._registry.register(_Watch(verifier))

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format."""
        return generate_latest(self._registry)


class _Watch(Collector):
    """Gauges read from the parts when Prometheus asks; nothing counts them."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def collect(self) -> Iterator[Metric]:
        verifier = self._verifier
        up = GaugeMetricFamily("gateway_backend_up", "1 if the backend answered last.", labels=("backend",))
        for seen in verifier.inventory.seen:
            up.add_metric((seen.backend.name,), seen.is_live)
        yield up
        yield GaugeMetricFamily(
            "gateway_limiter_up", "1 if Redis can be asked.", value=_is_up(verifier.limiter)
        )
        yield GaugeMetricFamily(
            "gateway_identities_cached",
            "Secrets that this process has cached.",
            value=len(verifier.identities),
        )
        yield CounterMetricFamily(
            "gateway_rebuilds", "Tenants rebuilt after a loss of Redis.", value=verifier.rebuilder.rebuilt
        )
        failed = CounterMetricFamily(
            "gateway_task_failures",
            "Failures of background tasks that were not foreseen; each has begun again.",
            labels=("task",),
        )
        for task in sorted(supervise.failures):
            failed.add_metric((task,), supervise.failures[task])
        yield failed
        untabled = Tables(verifier.settings.tables).untabled()
        yield GaugeMetricFamily(
            "gateway_untabled_models", "Models whose prompts count a token a byte.", value=len(untabled)
        )
        yield CounterMetricFamily(
            "gateway_bound_exceeded",
            "Answers that reported more input tokens than their bound.",
            value=sum(model.exceeded for model in untabled),
        )


def _is_up(limiter: Limiter) -> bool:
    try:
        limiter.ready()
    except LimiterUnavailable:
        return False
    return True

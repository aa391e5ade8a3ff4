"""Expose to Prometheus what all processes of the gateway share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import ProcessCollector, disable_created_metrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def add_process(registry: CollectorRegistry) -> None:
    """Add the process's own figures to a registry: memory, processor time, open files."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # when a series began is of no use
    ProcessCollector(namespace="gateway", registry=registry)

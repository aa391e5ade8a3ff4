"""Read from metering's own metrics how far the bill is behind, and its faults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import frozen

from authz.stack import unix

if TYPE_CHECKING:
    from pathlib import Path


@frozen(kw_only=True)
class Bill:
    """None is what metering has not looked at yet; what counts faults ought to be 0."""

    lag_bytes: int | None
    lag_s: float | None
    open_requests: int | None
    unpublished: int | None
    lost_lines: int | None
    dead_letters: int | None
    orphaned_requests: int | None
    overrun_tokens: int | None
    drift_tokens: int | None
    learned_models: int | None


def ask(path: Path) -> Bill | None:
    """Ask the metering that listens there; None if none does."""
    body = unix.get(path, "/metrics")
    return None if body is None else _bill(body.decode())


def _bill(text: str) -> Bill:
    """Read the samples, one a line; a family with labels counts as the sum of them."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("gateway_"):
            sample, _, value = line.rpartition(" ")
            name = sample.partition("{")[0]
            found[name] = found.get(name, 0) + float(value)
    lag_s = found["gateway_lag_seconds"]
    return Bill(
        lag_bytes=_whole(found["gateway_lag_bytes"]),
        lag_s=None if math.isnan(lag_s) else round(lag_s, 3),
        open_requests=_whole(found["gateway_open_requests"]),
        unpublished=_whole(found["gateway_unpublished"]),
        lost_lines=_whole(found.get("gateway_sequence_gaps_total", math.nan)),
        dead_letters=_whole(found["gateway_dead_letters"]),
        orphaned_requests=_whole(found["gateway_orphans_total"]),
        overrun_tokens=_whole(found["gateway_overrun_tokens_total"]),
        drift_tokens=_whole(found["gateway_drift_tokens"]),
        learned_models=_whole(found["gateway_learned_models"]),
    )


def _whole(number: float) -> int | None:
    return None if math.isnan(number) else int(number)

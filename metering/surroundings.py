"""The places of the journal and the stores, and what tests replace."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import Factory, field, frozen
from prometheus_client import CollectorRegistry

from metering.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from metering.prompts import Spool


def _nowhere(_step: str) -> None:
    """Do nothing between any two steps, where a test may kill the process."""


@frozen
class Surroundings:
    """The places of the journal and the stores, and what tests replace: the clock and the steps."""

    journal: Path
    database_url: str
    redis_url: str
    ledger_days: int | None = None
    spool: Spool | None = None
    address_days: int | None = None
    reach: Callable[[str], None] = _nowhere
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ticks: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    metrics: Metrics = field(
        default=Factory(lambda self: Metrics(CollectorRegistry(), clock=self.clock), takes_self=True)
    )

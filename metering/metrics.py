"""Metrics of metering: how far the bill is behind, which lines were lost, and where books differ."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from math import nan
from shutil import disk_usage
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from authz.prometheus import add_process
from metering.budgets import PERCENTS
from metering.rows import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from metering.budgets import BudgetUse
    from metering.journal import Page
    from metering.rows import LedgerRow, Tally
    from metering.tail import Tail

LEDGER_WINDOWS: Final = "ledger_windows"
WINDOWS_REDIS: Final = "windows_redis"

_RESULTS: Final = ("boot", "open", "settled", "no_row", "rejected")
"""What became of a line; a replay adds no row, nor does a refusal that is only counted."""

DUTIES: Final = (
    "versions",
    "sweep",
    "catch_up",
    "journal",
    "ledger",
    "prompts",
    "expiry",
    "books",
    "alerts",
)

_BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Metrics(Collector):
    """The registry of a process; it outlives each run of the loop, so that a failure shows as lag."""

    def __init__(
        self, registry: CollectorRegistry, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._tail: Tail | None = None
        self.tally: Tally | None = None
        """What Postgres has counted; None while it can't be asked. Likewise the budgets and the drift."""
        self.budgets_used: tuple[BudgetUse, ...] = ()
        self.drift: dict[str, int] | None = None
        self.failing: dict[str, int] = {}
        """How often each duty that fails has failed since it last succeeded."""
        self.orphans = 0
        self.known_until: datetime | None = None
        """To what moment everything that ran is billed: the last committed end of the journal."""
        add_process(registry)
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        lines = counter("gateway_lines", "Journal lines committed.", ("result",))
        self._lines = {result: lines.labels(result) for result in _RESULTS}
        self.settle_seconds = Histogram(
            "gateway_settle_seconds",
            "From reading lines to Redis's answer.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._orphans = counter("gateway_orphans", "Requests whose record never came.")
        self._overrun_tokens = counter("gateway_overrun_tokens", "Tokens charged beyond a reservation.")
        self._duties = counter("gateway_duty_failures", "Failures of duties beside the loop.", ("duty",))
        for duty in DUTIES:  # what has never failed is 0: else its first failures would be no increase
            self._duties.labels(duty)
        pieces = counter(
            "gateway_prompt_pieces",
            "Sealed pieces of prompts and answers; beyond is more than a tenant may have.",
            ("result",),
        )
        self.prompt_pieces = {result: pieces.labels(result) for result in ("stored", "beyond", "rejected")}
        self._dead_letters = gauge("gateway_dead_letters", "Lines kept because they were not understood.")
        self._open_requests = gauge("gateway_open_requests", "Begun and not ended.")
        self._unpublished = gauge("gateway_unpublished", "Ledger rows that Redis does not know yet.")
        self._learned_models = gauge(
            "gateway_learned_models", "Models of which answers have shown what tokens are."
        )
        drift = gauge("gateway_drift_tokens", "Tokens by which books differed.", ("between",))
        self._drift_tokens = {between: drift.labels(between) for between in (LEDGER_WINDOWS, WINDOWS_REDIS)}
        budgets = gauge("gateway_budgets", "Budgets of which so many percent are used.", ("used",))
        self._budgets = {percent: budgets.labels(str(percent)) for percent in PERCENTS}
        self.uncounted()
        self._free = gauge("gateway_disk_free_bytes", "Left on the journal's file system.")
        self._size = gauge("gateway_disk_bytes", "Size of the journal's file system.")
        lag_bytes = gauge("gateway_lag_bytes", "Bytes of the journal not read yet.")
        lag_bytes.set_function(self._lag_bytes)
        lag_seconds = gauge("gateway_lag_seconds", "Age of the last committed end.")
        lag_seconds.set_function(self._lag_s)
        registry.register(self)

    def follow(self, tail: Tail, known_until: datetime | None) -> None:
        """Note that the loop has started again where Postgres says."""
        self._tail, self.known_until = tail, known_until

    def watch_disk(self, folder: Path) -> None:
        """Look at the file system of this folder at every scrape."""
        self._free.set_function(lambda: _disk(folder)[0])
        self._size.set_function(lambda: _disk(folder)[1])

    def committed(self, page: Page, added: Iterable[LedgerRow]) -> None:
        """Count the lines of a page, and the rows that were new in the ledger."""
        rows = list(added)
        ended = {line.record.id for line in page.ended}
        settled = sum(row.request_id in ended for row in rows)
        counts = (len(page.boots), len(page.opens), settled, len(page.ended) - settled, len(page.dead))
        for result, count in zip(_RESULTS, counts, strict=True):
            self._lines[result].inc(count)
        orphans = sum(row.usage_source == Source.PROGRESS for row in rows)
        self.orphans += orphans
        self._orphans.inc(orphans)
        self._overrun_tokens.inc(sum(row.overrun_tokens for row in rows))

    def duty_failed(self, duty: str) -> None:
        """Count a failure of a duty beside the loop."""
        self._duties.labels(duty).inc()
        self.failing[duty] = self.failing.get(duty, 0) + 1

    def duty_done(self, duty: str) -> None:
        """Note that a duty has succeeded."""
        self.failing.pop(duty, None)

    def counted(self, tally: Tally) -> None:
        """Take over what Postgres has counted."""
        self.tally = tally
        self._dead_letters.set(tally.dead_letters)
        self._open_requests.set(tally.open_requests)
        self._unpublished.set(tally.unpublished)
        self._learned_models.set(tally.learned_models)

    def counted_budgets(self, used: Iterable[BudgetUse]) -> None:
        """Count the budgets that have reached each part."""
        self.budgets_used = tuple(budget for budget in used if budget.reached)
        reached = [budget.reached for budget in self.budgets_used]
        for percent, gauge in self._budgets.items():
            gauge.set(sum(each >= percent for each in reached))

    def drifted(self, tokens: Mapping[str, int]) -> None:
        """Take over by how many tokens books differed in the last walk through all of them."""
        self.drift = {between: tokens.get(between, 0) for between in self._drift_tokens}
        for between, gauge in self._drift_tokens.items():
            gauge.set(self.drift[between])

    def uncounted(self) -> None:
        """Forget what Postgres has counted: a figure that can't be read is neither 0 nor what it was."""
        self.tally, self.drift = None, None
        tallied = (self._dead_letters, self._open_requests, self._unpublished, self._learned_models)
        for unknown in (*tallied, *self._drift_tokens.values(), *self._budgets.values()):
            unknown.set(nan)

    def collect(self) -> Iterator[Metric]:
        """Set the lost lines, which Postgres remembers: no restart sets them back.

        As long as they are unknown there is no sample: an increase since an unknown figure would be one, too.
        """
        lost = CounterMetricFamily("gateway_sequence_gaps", "Journal lines that were lost.")
        if self.tally is not None:
            lost.add_metric((), self.tally.lost_lines)
        yield lost

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)

    def _lag_bytes(self) -> float:
        try:
            return nan if self._tail is None else self._tail.unread_bytes()
        except OSError:  # there is no journal to look at
            return nan

    def _lag_s(self) -> float:
        if self.known_until is None:
            return nan
        return max(0.0, (self._clock() - self.known_until).total_seconds())


def _disk(folder: Path) -> tuple[float, float]:
    """Return the bytes left and in all; unknown where there is no such folder yet."""
    try:
        found = disk_usage(folder)
    except OSError:
        return nan, nan
    return found.free, found.total

"""What authz itself finds wrong: backends away, bounds exceeded, and its own tasks that keep failing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import define, field

from authz import supervise
from authz.alerts.alert import BACKEND_AWAY, BOUND_EXCEEDED, TASK_FAILING, Alert, day

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from authz.backends.inventory import Seen
    from authz.backends.tables import Untabled

FAILURES: Final = 5
"""Unforeseen failures of a task within FAILURES_S that are more than bad luck."""

FAILURES_S: Final = 300.0


def away(seen: Iterable[Seen]) -> Iterator[Alert]:
    """Yield an alert for each backend that did not answer last."""
    for each in seen:
        if not each.is_live:
            name = each.backend.name
            yield Alert(
                kind=BACKEND_AWAY,
                subject=name,
                summary=f"The backend {name} does not answer authz",
                value=0,
                backend=name,
            )


def exceeded(models: Iterable[Untabled], at: datetime) -> Iterator[Alert]:
    """Yield an alert a month for each model of which an answer had more tokens than its bound."""
    for model in models:
        if model.exceeded:
            yield Alert(
                kind=BOUND_EXCEEDED,
                subject=model.digest,
                summary=f"{model.exceeded} answers of {model.model} had more input tokens than their bound",
                value=model.exceeded,
                period=f"{at:%Y-%m}",
            )


@define
class Failing:
    """Finds the tasks of this process that keep failing."""

    _counted_at_s: float = float("-inf")
    _counted: dict[str, int] = field(factory=dict)

    def alerts(self, now_s: float, at: datetime) -> Iterator[Alert]:
        """Yield an alert a day for each of them."""
        if now_s - self._counted_at_s >= FAILURES_S:
            self._counted_at_s, self._counted = now_s, dict(supervise.failures)
        for task, count in supervise.failures.items():
            recent = count - self._counted.get(task, 0)
            if recent >= FAILURES:
                yield Alert(
                    kind=TASK_FAILING,
                    subject=f"authz/{task}",
                    summary=f"The task {task} of authz has failed {recent} times within five minutes",
                    value=recent,
                    period=day(at),
                )

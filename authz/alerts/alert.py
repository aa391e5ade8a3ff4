"""What alerts there are: how bad each is, what to do, and how long it must have held.

caddy/alerts.yaml has a rule of the same name for each of KINDS, for those who run a Prometheus.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from datetime import datetime


class Severity(StrEnum):
    """How soon a person is needed."""

    CRITICAL = "critical"
    """Requests are refused, or tokens are on no bill."""
    WARNING = "warning"
    """They will be."""
    INFO = "info"


@frozen
class Kind:
    """A kind of alert; an event shorter than `for_s` is none."""

    name: str
    severity: Severity
    action: str
    """What a person should do, in a sentence."""
    for_s: float = 0.0


BUDGET_NEARLY_USED: Final = Kind(
    "budget_nearly_used",
    Severity.INFO,
    "Raise it with `neuronetz-gateway set-limits`, or let its requests be refused when it is used up.",
)
BUDGET_USED: Final = Kind(
    "budget_used",
    Severity.WARNING,
    "Raise it with `neuronetz-gateway set-limits`, or leave it: `show-limits` says when it begins anew.",
)
LINES_LOST: Final = Kind(
    "lines_lost",
    Severity.CRITICAL,
    "Find out who moved, cut or removed journal files; metering alone removes them.",
)
DEAD_LETTERS: Final = Kind(
    "dead_letters",
    Severity.CRITICAL,
    "`neuronetz-gateway dead-letters list` says why; replay them once that is mended.",
)
DRIFT: Final = Kind(
    "drift",
    Severity.CRITICAL,
    "Metering repairs what lacks tokens and logs each window; judge yourself one that has too many.",
    for_s=120,
)
ORPHANS: Final = Kind(
    "orphans", Severity.WARNING, "Find out why Caddy was killed or lost its machine; its log ends there."
)
BOUND_EXCEEDED: Final = Kind(
    "bound_exceeded",
    Severity.WARNING,
    "Its prompts count a token a byte now; report the model's name and version.",
)
BACKEND_AWAY: Final = Kind(
    "backend_away",
    Severity.CRITICAL,
    "`neuronetz-gateway probe-ollama NAME` says what it answers; start it, or mend the network.",
    for_s=60,
)
DISK_NEARLY_FULL: Final = Kind(
    "disk_nearly_full",
    Severity.WARNING,
    "Free space, or give the journal a larger disk; when it is full, every request is refused.",
    for_s=60,
)
TASK_FAILING: Final = Kind(
    "task_failing",
    Severity.WARNING,
    "The log of the process that is named says why, and repeats it until it is mended.",
    for_s=60,
)
KINDS: Final = (
    BUDGET_NEARLY_USED,
    BUDGET_USED,
    LINES_LOST,
    DEAD_LETTERS,
    DRIFT,
    ORPHANS,
    BOUND_EXCEEDED,
    BACKEND_AWAY,
    DISK_NEARLY_FULL,
    TASK_FAILING,
)

QUEUE_FULL: Final = Kind(
    "queue_full",
    Severity.WARNING,
    "`neuronetz-gateway alerts list` shows all; look why the receiver takes so few, or why so many come.",
)
"""Of this room itself: what is raised beyond its queue is not posted."""

TEST: Final = Kind("test", Severity.INFO, "Nothing is to be done: alerts reach you.")
"""Posted by hand."""


@frozen(kw_only=True)
class Alert:
    """An event that needs a person; an event is its kind and its subject, once in a period."""

    kind: Kind
    subject: str
    summary: str
    """What happened, in a sentence without a full stop."""
    value: int
    period: str | None = None
    """The period of what has simply happened; None for a state, which lasts until it has recovered."""
    tenant: str | None = None
    key: str | None = None
    node: str | None = None
    backend: str | None = None

    @property
    def event(self) -> tuple[str, str]:
        """Return what makes two alerts the same event."""
        return self.kind.name, self.subject


def hour(at: datetime) -> str:
    """Return the period of events that are worth a post an hour."""
    return f"{at:%Y-%m-%dT%H}"


def day(at: datetime) -> str:
    """Return the period of events that are worth a post a day."""
    return f"{at:%Y-%m-%d}"

"""What metering finds that needs a person, written into Postgres beside the loop: an authz posts it.

It looks at what the metrics already know, so that nothing is detected twice, and has a connection of its own:
a bill never waits for it.
"""

from __future__ import annotations

import asyncio
from shutil import disk_usage
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import UUID, uuid4

import structlog
from attrs import Factory, define, field

from authz.alerts.alert import (
    BUDGET_NEARLY_USED,
    BUDGET_USED,
    DEAD_LETTERS,
    DISK_NEARLY_FULL,
    DRIFT,
    LINES_LOST,
    ORPHANS,
    TASK_FAILING,
    Alert,
    Kind,
    hour,
)
from authz.alerts.book import Book
from authz.alerts.reporter import Reporter
from authz.store import METERING_ROLE, Store
from authz.supervise import failure_of
from authz.types import Period
from metering.budgets import PERCENTS
from metering.service import node_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from metering.budgets import BudgetUse
    from metering.rows import Tally
    from metering.surroundings import Surroundings

log: Final = structlog.get_logger()

ROUND_S: Final = 10.0

LEAST_FREE_PERCENT: Final = 10
"""Of the journal's disk; caddy/alerts.yaml has the same."""

FAILURES: Final = 3
"""Failures of a duty in a row that are more than bad luck."""


async def follow(around: Surroundings) -> NoReturn:
    """Report until cancelled; what fails is counted as a duty, and done again in the next round."""
    store = Store(around.database_url, role=METERING_ROLE, connections=1)
    try:
        found = Found(around, Book(store))
        while True:
            error = await failure_of(found.round())
            if error is None:
                around.metrics.duty_done("alerts")
            else:
                around.metrics.duty_failed("alerts")
                log.warning("metering.alerts_unavailable", reason=str(error) or repr(error))
            await asyncio.sleep(ROUND_S)
    finally:
        await store.close()


@define
class Found:
    """What one metering finds, round after round."""

    _around: Surroundings
    _book: Book
    _holder: UUID = field(factory=uuid4)
    _budgets: Reporter = field(default=Factory(lambda self: self._reporter("budgets"), takes_self=True))
    _books: Reporter | None = None
    _node: UUID | None = None
    _machine: Reporter = field(init=False)
    _journal: Reporter = field(init=False)
    _lost_lines: int = 0
    """How many of the node's lost lines were alerted, and of its orphans."""
    _orphans: int = 0

    async def round(self) -> None:
        """Report what there is. Raises StoreUnavailable."""
        node = self._node or await self._begun()
        if node is None:
            return
        await self._machine.report([*self._full_disk(node), *self._failing(node)])
        metrics = self._around.metrics
        if metrics.tally is None:
            return  # what can't be counted has neither happened nor recovered
        await self._report_journal(node, metrics.tally)
        await self._budgets.report(map(_of_budget, metrics.budgets_used))
        await self._report_drift()

    async def _begun(self) -> UUID | None:
        """Take up the node once Caddy has started: None before."""
        node = node_of(self._around.journal)
        if node is not None:
            self._lost_lines = await self._book.last_value(LINES_LOST.name, str(node))
            self._machine = self._reporter(f"metering/{node}/machine")
            self._journal = self._reporter(f"metering/{node}")
            self._node = node
        return node

    async def _report_journal(self, node: UUID, tally: Tally) -> None:
        """Report what is lost, not understood or without a record; counts go on from what was alerted."""
        at, orphans = self._around.clock(), self._around.metrics.orphans
        self._lost_lines = min(self._lost_lines, tally.lost_lines)
        holding = []
        if lost := tally.lost_lines - self._lost_lines:
            sentence = f"{lost} journal lines of node {node} were lost: what they recorded is on no bill"
            holding.append(_of_node(LINES_LOST, node, sentence, tally.lost_lines, period=hour(at)))
        if count := orphans - self._orphans:
            sentence = f"{count} requests of node {node} ended without a record, billed by their progress"
            holding.append(_of_node(ORPHANS, node, sentence, count, period=hour(at)))
        if tally.dead_letters:
            sentence = f"{tally.dead_letters} journal lines of node {node} were not understood, on no bill"
            holding.append(_of_node(DEAD_LETTERS, node, sentence, tally.dead_letters))
        raised = {name for name, _ in await self._journal.report(holding)}
        if LINES_LOST.name in raised:
            self._lost_lines = tally.lost_lines
        if ORPHANS.name in raised:
            self._orphans = orphans

    async def _report_drift(self) -> None:
        """Report by what the books differ: every metering looks at all of them, and one speaks."""
        drift = self._around.metrics.drift
        if drift is None:
            return
        if not await self._book.lease("metering", self._holder, at=self._around.clock()):
            self._books = None
            return
        self._books = self._books or self._reporter("books")
        await self._books.report(
            Alert(kind=DRIFT, subject=books, value=tokens, summary=f"{books} differ by {tokens} tokens")
            for books, tokens in drift.items()
            if tokens
        )

    def _full_disk(self, node: UUID) -> Iterator[Alert]:
        try:
            found = disk_usage(self._around.journal.parent)
        except OSError:
            return
        percent = 100 * found.free // max(1, found.total)
        if percent < LEAST_FREE_PERCENT:
            sentence = f"{percent} % of the disk with the journal of node {node} is free"
            yield _of_node(DISK_NEARLY_FULL, node, sentence, percent)

    def _failing(self, node: UUID) -> Iterator[Alert]:
        for duty, failures in self._around.metrics.failing.items():
            if failures >= FAILURES:
                sentence = f"The duty {duty} of metering on node {node} fails again and again"
                alert = _of_node(TASK_FAILING, node, sentence, failures, subject=f"{node}/{duty}")
                yield alert

    def _reporter(self, source: str) -> Reporter:
        return Reporter(self._book, source, self._around.clock, self._around.ticks)


def _of_node(
    kind: Kind, node: UUID, summary: str, value: int, *, period: str | None = None, subject: str | None = None
) -> Alert:
    return Alert(
        kind=kind, subject=subject or str(node), summary=summary, value=value, period=period, node=str(node)
    )


def _of_budget(used: BudgetUse) -> Alert:
    """Return the alert of a budget that has reached a part; one that was raised is another event."""
    owner = f"tenant {used.tenant}" if used.key is None else f"key {used.key} of tenant {used.tenant}"
    span = "in total" if used.period == Period.TOTAL else f"of the {used.period} from {used.start}"
    part = f"is used to {used.percent} %: {used.used:,} of {used.budget:,} tokens"
    return Alert(
        kind=BUDGET_USED if used.reached >= PERCENTS[-1] else BUDGET_NEARLY_USED,
        subject=f"{used.tenant}/{used.key or ''}/{used.period}/{used.budget}",
        summary=f"The budget {span} of {owner} {part}",
        value=used.percent,
        period=used.start.isoformat(),
        tenant=used.tenant,
        key=used.key,
    )

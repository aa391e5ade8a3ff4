"""The requests that really run and the tokens really used, by which L3 and L4 are judged."""

from __future__ import annotations

from datetime import date, timedelta
from uuid import UUID

from attrs import define, field

from authz.limiter.admission import Admission
from authz.types import Limits, OpenRequest
from tests.authz.limiting import DEADLINE_S, Desk

GRANT_AGE = timedelta(seconds=2)


@define
class Truth:
    """The requests that went upstream, and those of them that have ended there."""

    desk: Desk
    started: set[UUID] = field(factory=set)
    ended: set[UUID] = field(factory=set)

    def running(self) -> list[UUID]:
        """Return the requests with an open row."""
        return [id_ for id_ in self.desk.admitted if id_ in self.started and id_ not in self.desk.ledger]

    def live(self) -> list[UUID]:
        """Return the requests that run, or may still start because their Grant is young."""
        return [
            id_
            for id_, row in self.desk.admitted.items()
            if id_ not in self.desk.ledger and (id_ in self.started or self._is_young(row))
        ]

    def reserved(self, id_: UUID) -> int:
        """The tokens a request was promised."""
        row = self.desk.admitted[id_]
        return row.held_input + row.held_output

    def check(self, ask: Admission) -> None:
        """Nothing that was just admitted breaks a ceiling of its tenant or its key."""
        row = self.desk.admitted[ask.request_id]
        for scope, limits in ((self.desk.tenant, ask.tenant_limits), (ask.key, ask.key_limits)):
            for limit, day, month in _budgets(limits, row):
                promised = self._promised(scope, day, month)
                assert limit is None or promised <= limit, "L3: more is promised than the budget allows"
            running = self._running_now(scope)
            assert limits.concurrency is None or running <= limits.concurrency, "L4: more run than slots"

    def _promised(self, scope: UUID, day: date | None, month: date | None) -> int:
        """Return the tokens that were used, or may still be, in one window."""
        live = set(self.live())
        return sum(
            self.desk.ledger.get(id_, self.reserved(id_) if id_ in live else 0)
            for id_, row in self.desk.admitted.items()
            if scope in (self.desk.tenant, row.key) and day in (None, row.day) and month in (None, row.month)
        )

    def _running_now(self, scope: UUID) -> int:
        return sum(
            1
            for id_ in self.live()
            if id_ not in self.ended
            and scope in (self.desk.tenant, self.desk.admitted[id_].key)
            and self.desk.now < self.desk.admitted[id_].deadline
        )

    def _is_young(self, row: OpenRequest) -> bool:
        return self.desk.now < row.deadline - timedelta(seconds=DEADLINE_S) + GRANT_AGE


def _budgets(limits: Limits, row: OpenRequest) -> tuple[tuple[int | None, date | None, date | None], ...]:
    """Each budget with the day or month that pays."""
    return (
        (limits.tokens_per_day, row.day, None),
        (limits.tokens_per_month, None, row.month),
        (limits.tokens_total, None, None),
    )

"""Refuse for a limit: which one, how far it is used, and what helps: time, or a smaller request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from authz.decision import rate_headers
from authz.decision.refusals import Reason, Refusal
from authz.limiter.limiter import READS_PER_MINUTE

if TYPE_CHECKING:
    from datetime import datetime

    from authz.decision.calendar import Calendar
    from authz.limiter.admission import LimitReached
    from authz.types import Identity

PERIODS: Final = {"day": "per day", "month": "per month", "total": "in total"}
RATES: Final = {"requests": Reason.RATE_REQUESTS, "tokens": Reason.RATE_TOKENS}
NOT_DECIDED: Final = {
    "lost": Reason.REBUILDING,
    "late": Reason.ASK_LATE,
    "closed": Reason.REQUEST_CLOSED,
    "calendar": Reason.REQUEST_CLOSED,
}
"""Reasons to refuse a request that the script could not judge."""


def limit_reached(reached: LimitReached, identity: Identity, *, calendar: Calendar, retry_s: int) -> Refusal:
    """Refuse for a limit: which one, of the tenant or the key, how far it is used, when to try again.

    `retry_s` is for what running requests hold; a rate has a wait of its own.
    """
    owner = "The tenant's" if reached.scope == "tenant" else "This key's"
    words = {"owner": owner, "limit": f"{reached.value:,}", "used": f"{reached.used:,}"}
    if reached.limit in RATES:
        words["seconds"] = str(max(1, math.ceil(reached.wait_us / 1_000_000)))
        return Refusal(RATES[reached.limit], identity, rate_headers.retry_after(reached.wait_us), words)
    left = reached.value - reached.used
    words["needed"] = f"{reached.needed:,}"
    if reached.limit in PERIODS:
        words |= {"period": PERIODS[reached.limit], "left": f"{left:,}"}
        words["remedy"] = _remedy(reached, calendar)
        reason = Reason.BUDGET_TOO_SMALL if left > 0 else Reason.BUDGET_EXHAUSTED
        return Refusal(reason, identity, words=words)
    words["seconds"] = str(retry_s)
    retry = rate_headers.retry_after(retry_s * 1_000_000)
    if reached.limit == "concurrency":
        return Refusal(Reason.CONCURRENCY, identity, retry, words)
    words |= {"period": PERIODS[reached.limit.removeprefix("held_")], "held": f"{reached.held:,}"}
    words["left"] = f"{max(0, left - reached.held):,}"
    return Refusal(Reason.BUDGET_HELD, identity, retry, words)


def reads_used_up(identity: Identity, wait_us: int) -> Refusal:
    """Refuse a read route to a key that has had its reads of this minute."""
    words = {"limit": f"{READS_PER_MINUTE:,}", "seconds": str(max(1, math.ceil(wait_us / 1_000_000)))}
    return Refusal(Reason.RATE_READS, identity, rate_headers.retry_after(wait_us), words)


def _remedy(reached: LimitReached, calendar: Calendar) -> str:
    """Return what helps: a shorter prompt if anything is left, and time if a whole budget suffices."""
    helps = "send a shorter prompt, or " if reached.used < reached.value else ""
    if reached.limit == "total" or reached.needed > reached.value:
        return f"{helps}ask its owner for more"
    start: datetime = calendar.valid_until if reached.limit == "day" else calendar.next_month
    return f"{helps}{'wait: ' if helps else ''}it starts again at {start.isoformat(timespec='seconds')}"

"""A ceiling that was reached, in words: which, whose, how far, and when to try again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from authz.decision import rate_headers
from authz.decision.refusals import Refusal

if TYPE_CHECKING:
    from datetime import datetime

    from authz.decision.calendar import Calendar
    from authz.limiter.admission import Refused
    from authz.types import Identity

PERIODS: Final = {"day": "per day", "month": "per month", "total": "in total"}
NEVER_RETRY: Final = {"x-should-retry": "false"}
"""Some SDKs sleep for whatever Retry-After says, without a bound; a budget may need weeks."""


def refuse(refused: Refused, identity: Identity, *, calendar: Calendar, retry_s: int) -> Refusal:
    """Word a reached ceiling; `retry_s` is for what running requests hold, rates know their own."""
    whose = "The tenant's" if refused.scope == "tenant" else "This key's"
    words = {"whose": whose, "limit": f"{refused.value:,}", "used": f"{refused.used:,}"}
    if refused.limit in {"requests", "tokens"}:
        words["seconds"] = str(max(1, math.ceil(refused.wait_us / 1_000_000)))
        return Refusal(f"rate_{refused.limit}", identity, rate_headers.retry_after(refused.wait_us), words)
    if refused.limit in PERIODS:
        words |= {"period": PERIODS[refused.limit], "remedy": _remedy(refused.limit, calendar)}
        return Refusal("budget_exhausted", identity, NEVER_RETRY, words)
    words["seconds"] = str(retry_s)
    retry = rate_headers.retry_after(retry_s * 1_000_000)
    if refused.limit == "concurrency":
        return Refusal("concurrency", identity, retry, words)
    words |= {"period": PERIODS[refused.limit.removeprefix("held_")], "held": f"{refused.held:,}"}
    return Refusal("budget_held", identity, retry, words)


def _remedy(period: str, calendar: Calendar) -> str:
    if period == "total":
        return "ask its owner for more"
    start: datetime = calendar.valid_until if period == "day" else calendar.next_month
    return f"it starts again at {start.isoformat(timespec='seconds')}"

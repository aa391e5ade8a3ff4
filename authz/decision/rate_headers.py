"""Write rate-limit headers, each family once: what is left of whichever limit is the tighter.

OpenAI: x-ratelimit-{limit,remaining,reset}-{requests,tokens}, reset as a Go duration until full.
Anthropic: anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}, reset in RFC 3339.
IETF: RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10), which know no tokens.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from authz.decision.refusals import NEVER_RETRY
from authz.types import Dialect

if TYPE_CHECKING:
    from datetime import datetime

    from authz.limiter.admission import Rate

MINUTE_S = 60
SILENT_WAIT_S: Final = 4
"""Of a limit, the longest wait that clients are left to spend and to retry by themselves.

The SDKs of OpenAI and Anthropic wait up to a minute before they raise anything, and coding agents as long:
their users would see no reason for it.
"""


def of_rates(
    requests: Rate | None, tokens: Rate | None, *, dialect: Dialect, now: datetime
) -> dict[str, str]:
    """Return the headers of an admitted request; none where there is no rate limit."""
    headers: dict[str, str] = {}
    for unit, rate in (("requests", requests), ("tokens", tokens)):
        if rate is not None:
            family = _anthropic if dialect is Dialect.ANTHROPIC else _openai
            headers |= family(unit, rate, now)
    if requests is not None:
        headers["ratelimit-policy"] = f'"requests";q={requests.limit};w={MINUTE_S}'
        seconds = math.ceil(requests.full_in_us / 1_000_000)
        headers["ratelimit"] = f'"requests";r={requests.left};t={seconds}'
    return headers


def retry_after(wait_us: int) -> dict[str, str]:
    """Return when to try again: whole seconds for all clients, milliseconds for those that read them.

    A long wait is for the user to decide about, so the client is asked not to spend it in silence.
    """
    seconds = max(1, math.ceil(wait_us / 1_000_000))
    headers = {"retry-after": str(seconds), "retry-after-ms": str(max(1, math.ceil(wait_us / 1000)))}
    return headers if seconds <= SILENT_WAIT_S else headers | NEVER_RETRY


def _openai(unit: str, rate: Rate, _: datetime) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{unit}": str(rate.limit),
        f"x-ratelimit-remaining-{unit}": str(rate.left),
        f"x-ratelimit-reset-{unit}": _duration(rate.full_in_us),
    }


def _anthropic(unit: str, rate: Rate, now: datetime) -> dict[str, str]:
    full_at = now + timedelta(microseconds=rate.full_in_us)
    return {
        f"anthropic-ratelimit-{unit}-limit": str(rate.limit),
        f"anthropic-ratelimit-{unit}-remaining": str(rate.left),
        f"anthropic-ratelimit-{unit}-reset": full_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _duration(us: int) -> str:
    """Format a duration as Go does: 12ms, 1s, 6m0s."""
    seconds, ms = divmod(math.ceil(us / 1000), 1000)
    if not seconds:
        return f"{ms}ms"
    minutes, rest = divmod(seconds + ms / 1000, MINUTE_S)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"

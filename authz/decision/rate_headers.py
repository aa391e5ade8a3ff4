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

_PARTS: Final = ("limit", "remaining", "reset")
_NAMES: Final = {
    (unit, is_anthropic): tuple(form.format(unit=unit, part=part) for part in _PARTS)
    for unit in ("requests", "tokens")
    for is_anthropic, form in (
        (True, "anthropic-ratelimit-{unit}-{part}"),
        (False, "x-ratelimit-{part}-{unit}"),
    )
}
"""The headers of a rate, by what it counts and whether Anthropic's clients read them."""

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
    is_anthropic = dialect is Dialect.ANTHROPIC
    for unit, rate in (("requests", requests), ("tokens", tokens)):
        if rate is not None:
            limit, left, reset = _NAMES[unit, is_anthropic]
            headers[limit] = str(rate.limit)
            headers[left] = str(rate.left)
            headers[reset] = _moment(now, rate.full_in_us) if is_anthropic else _duration(rate.full_in_us)
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


def _moment(now: datetime, in_us: int) -> str:
    """Format a time in UTC as RFC 3339 does."""
    return (now + timedelta(microseconds=in_us)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _duration(us: int) -> str:
    """Format a duration as Go does: 12ms, 1s, 6m0s."""
    seconds, ms = divmod(math.ceil(us / 1000), 1000)
    if not seconds:
        return f"{ms}ms"
    minutes, rest = divmod(seconds + ms / 1000, MINUTE_S)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"

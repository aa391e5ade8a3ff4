"""The clocks of the machines: a request is judged by three of them, which must agree to a second."""

from __future__ import annotations

import time
from itertools import combinations
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.stack.doctor.finding import Finding, fail, ok

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

MOST_SKEW_S: Final = 1.0
CHECK: Final = "clocks"


@frozen
class Clock:
    """A clock, ahead of this machine's by so much; the answer took twice `within_s`."""

    name: str
    ahead_s: float
    within_s: float = 0.0


HERE: Final = Clock("this machine", 0.0)


async def read(name: str, now: Callable[[], Awaitable[datetime]]) -> Clock:
    """Compare a clock with this machine's, at the middle of the time that its answer took."""
    before = time.time()
    moment = await now()
    took = time.time() - before
    return Clock(name, moment.timestamp() - before - took / 2, took / 2)


def judge(clocks: list[Clock]) -> list[Finding]:
    """Compare each two clocks; what the answers took is no skew."""
    found = []
    for one, other in combinations(clocks, 2):
        skew = one.ahead_s - other.ahead_s
        if abs(skew) - one.within_s - other.within_s > MOST_SKEW_S:
            first, second = (one, other) if skew > 0 else (other, one)
            sentence = (
                f"The clock of {first.name} is {abs(skew):.1f} s ahead of that of {second.name}: "
                "run NTP on both; requests that seem too old or too new are refused."
            )
            found.append(fail(CHECK, sentence))
    names = ", ".join(clock.name for clock in clocks)
    return found or [ok(CHECK, f"{names} agree to {MOST_SKEW_S:.0f} s.")]

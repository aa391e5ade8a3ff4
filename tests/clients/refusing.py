"""What a user sees when a program is refused, with the retries that it makes by itself."""

from __future__ import annotations

import asyncio
import re
from enum import StrEnum
from typing import Final

from attrs import frozen

from tests.clients.programs import CHAT
from tests.clients.using import Shown, User

SHOWN_WITHIN_S: Final = 5.0
_BLANKS: Final = re.compile(r"\s+")


class Refusal(StrEnum):
    """A way to be refused."""

    WRONG_KEY = "wrong key"
    SPENT_BUDGET = "spent budget"
    RATE_LIMIT = "rate limit"
    DEAD_BACKEND = "dead backend"


SENTENCES: Final = {
    Refusal.WRONG_KEY: "Invalid or missing API key",
    Refusal.SPENT_BUDGET: "This key's budget of 1 tokens per day",
    Refusal.RATE_LIMIT: "This key's limit of 1 requests per minute is reached",
    Refusal.DEAD_BACKEND: "backend",
}
"""The gateway's own words, which a program shows unless its description has others."""


@frozen
class Refused:
    """One refused command."""

    words: str
    reason: str
    """Why the program shows it later, if it is known to do so."""
    shown: Shown
    usual_s: float
    """What the program takes at most to start and to show a short answer, on this machine now."""

    @property
    def late_s(self) -> float:
        """How much longer it took than an answer."""
        return max(0.0, self.shown.seconds - self.usual_s)

    @property
    def verdict(self) -> str:
        """Return whether it was shown in time, in a word."""
        return "known" if self.reason else "NO" if self.complaints else ""

    @property
    def complaints(self) -> list[str]:
        """Return what is wrong with it, if anything."""
        if self.reason:
            return []
        found = []
        if self.words.lower() not in _BLANKS.sub(" ", self.shown.all).lower():
            found.append(f"{self.words!r} is not shown: {self.shown.all[-2000:]}")
        if self.late_s > SHOWN_WITHIN_S:
            found.append(f"it is shown {self.late_s:.1f} s later than an answer is")
        return found


async def refused(user: User, refusal: Refusal, *, usual_s: float) -> Refused:
    """Ask as a user who is to be refused; for a rate limit, once before."""
    name = refusal.name.lower()
    words = user.program.shown.get(name, SENTENCES[refusal])
    reason = user.program.late.get(name, "")
    if refusal is Refusal.RATE_LIMIT:
        await asyncio.to_thread(user.run, CHAT)
    run = Refused(words, reason, await asyncio.to_thread(user.run, CHAT), usual_s)
    if run.late_s > SHOWN_WITHIN_S and not reason:  # was it the program, or what else the machine does?
        run = Refused(words, reason, await asyncio.to_thread(user.run, CHAT), usual_s)
    return run

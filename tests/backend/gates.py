"""Gates that withhold words until a test lets them pass, so that no test needs a sleep."""

import asyncio
from collections import defaultdict

from attrs import define, field


@define
class Gates:
    """Named gates: a word takes one pass of its gate, or waits for one."""

    _passes: defaultdict[str, asyncio.Semaphore] = field(
        factory=lambda: defaultdict(lambda: asyncio.Semaphore(0))
    )

    async def take(self, name: str) -> None:
        """Wait for a pass; a request without a gate never waits."""
        if name:
            await self._passes[name].acquire()

    def release(self, name: str, words: int) -> None:
        """Let that many words pass, now or when they come."""
        for _ in range(words):
            self._passes[name].release()

    def clear(self) -> None:
        """Forget unused passes; words that wait keep waiting at their gate."""
        # Whoever waits keeps its semaphore: a later gate of the same name is another one.
        self._passes.clear()

"""How many tokens a model's template adds to a prompt: what answers have shown, at least the setting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from authz.errors import StoreUnavailable
from authz.models import canonical

if TYPE_CHECKING:
    from authz.store import Store

log = structlog.get_logger()

READ_EVERY_S = 5.0


class Templates:
    """Remembers what metering has learned; knows the setting until it has read it."""

    def __init__(self, store: Store, *, least: int) -> None:
        self._store = store
        self._least = least
        self._learned: dict[str, int] = {}

    def tokens_of(self, model: str) -> int:
        """What a bound of a model's input must allow for its template."""
        return max(self._least, self._learned.get(canonical(model), 0))

    async def run(self) -> None:
        """Read what was learned, until cancelled; without Postgres what is known stays."""
        while True:
            try:
                self._learned = await self._store.template_tokens()
            except StoreUnavailable as error:
                log.debug("authz.templates_unread", error=str(error))
            await asyncio.sleep(READ_EVERY_S)

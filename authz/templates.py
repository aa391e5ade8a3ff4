"""Remember how many tokens each model's template adds to a prompt, as metering has learned it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from authz.errors import StoreUnavailable

if TYPE_CHECKING:
    from authz.store import Store

log = structlog.get_logger()

READ_EVERY_S = 5.0


class Templates:
    """The learned template tokens by canonical model name, read again every few seconds."""

    def __init__(self, store: Store, *, least: int) -> None:
        self._store = store
        self.least = least
        """What a bound allows for the template of a model that nothing was learned about."""
        self.learned: dict[str, int] = {}

    async def run(self) -> None:
        """Read what was learned until cancelled; while Postgres is away, keep what was read last."""
        while True:
            try:
                self.learned = await self._store.template_tokens()
            except StoreUnavailable as error:
                log.debug("authz.templates_unread", error=str(error))
            await asyncio.sleep(READ_EVERY_S)

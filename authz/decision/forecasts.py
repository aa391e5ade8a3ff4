"""What a request of a tenant will probably use of a model: what is held of limits where no budget is.

It is the mean of the tenant's own answers, so that nothing another one sends moves it. A settlement replaces
it by what was used; so a forecast that is wrong costs nothing but room for a moment.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import structlog
from attrs import frozen

from authz.errors import StoreUnavailable
from authz.types import GREATEST_COUNT

if TYPE_CHECKING:
    from uuid import UUID

    from authz.store import Store
    from authz.types import AnswerSums

log = structlog.get_logger()

READ_EVERY_S: Final = 60.0

BYTES_PER_TOKEN: Final = 4
"""Of a usual prompt; a bound can't use it, since a byte-level tokenizer may need a token per byte."""

PRIOR_ANSWERS: Final = 4
"""So many answers of the assumed length are blended with those of a tenant."""

PRIOR_PROMPT_TOKENS: Final = 200
"""So many tokens of a usual prompt, likewise."""


@frozen
class Forecast:
    """The likely length of an answer in tokens, and the bytes of a prompt for each of its tokens."""

    output: int
    bytes_per_token: float = BYTES_PER_TOKEN

    def learned(self, sums: AnswerSums) -> Forecast:
        """Return this one, moved by what was seen."""
        answers = PRIOR_ANSWERS + sums.generations
        output = (PRIOR_ANSWERS * self.output + sums.answer_tokens) / answers
        prompts = PRIOR_PROMPT_TOKENS + sums.prompt_tokens
        ratio = (PRIOR_PROMPT_TOKENS * self.bytes_per_token + sums.prompt_bytes) / prompts
        return Forecast(min(max(1, round(output)), GREATEST_COUNT), max(1.0, ratio))


class Forecasts:
    """What was read of them last; while Postgres is away that stays."""

    def __init__(self, store: Store, *, assumed: int) -> None:
        self._store = store
        self.usual = Forecast(assumed)
        """Of a tenant that has shown nothing of a model."""
        self.of: dict[tuple[UUID, str], Forecast] = {}
        """By tenant and canonical name of the model."""

    async def run(self) -> None:
        """Read them until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(READ_EVERY_S)

    async def read(self) -> None:
        """Read them once, if Postgres can be asked."""
        try:
            found = await self._store.learned()
        except StoreUnavailable as error:
            log.debug("authz.forecasts_unread", error=str(error))
            return
        self.of = {(tenant, model): self.usual.learned(sums) for tenant, model, sums in found}

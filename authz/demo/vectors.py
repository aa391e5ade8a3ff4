"""The story of one request for vectors: understand, refuse, else embed."""

import asyncio

from attrs import frozen

from authz.demo import knobs
from authz.demo.backend import Backend
from authz.demo.embeddings import Embedder, Wanted, input_tokens
from authz.demo.exchange import Exchange
from authz.demo.tally import Entry
from authz.demo.types import Refusal


@frozen
class Embedding:
    """Serves one embedding route."""

    backend: Backend
    embedder: Embedder

    async def serve(self, exchange: Exchange, body: bytes, entry: Entry) -> None:
        """Answer one request for vectors; its input tokens count once its gate has opened."""
        wanted = self.embedder.understand(body)
        if isinstance(wanted, Refusal):
            await self._refuse(exchange, wanted, entry)
            return
        entry.model = wanted.model
        if self.backend.model(wanted.model) is None:
            text = f'model "{wanted.model}" not found, try pulling it first'
            await self._refuse(exchange, Refusal(404, text), entry)
            return
        wishes = knobs.read(" ".join(wanted.texts))
        entry.tag = wishes.tag
        await self.backend.tally.notify()
        if wishes.mode == "status":
            await self._refuse(exchange, self._scripted(wishes.code), entry, end="status")
            return
        await asyncio.sleep(wishes.delay_ms / 1000)
        await self.backend.gates.take(wishes.hold)
        await self._reply(exchange, wanted, entry)

    async def _reply(self, exchange: Exchange, wanted: Wanted, entry: Entry) -> None:
        entry.input_tokens = sum(map(input_tokens, wanted.texts))
        entry.status, entry.end = 200, "stop" if wanted.texts else "load"
        body = self.embedder.reply(wanted, entry.input_tokens)
        await exchange.answer(200, *self.embedder.wording.whole(body))

    def _scripted(self, code: int) -> Refusal:
        # The oldest of the routes hides the runner's status.
        is_oldest = self.embedder.path == "/api/embeddings"
        return Refusal(500 if is_oldest else code, "scripted failure")

    async def _refuse(
        self, exchange: Exchange, refusal: Refusal, entry: Entry, *, end: str = "refused"
    ) -> None:
        entry.status, entry.end = refusal.status, end
        await exchange.answer(refusal.status, *self.embedder.wording.refused(refusal))

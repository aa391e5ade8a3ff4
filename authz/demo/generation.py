"""The story of one metered request: understand, refuse or load, else play the script."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from attrs import evolve, frozen

from authz.demo import script, voice
from authz.demo.backend import Backend
from authz.demo.exchange import Exchange
from authz.demo.play import play
from authz.demo.tally import Entry
from authz.demo.types import Call, Clock, Failure, Line, Model, Refusal
from authz.demo.voice import Dialect, Voice

Steps = AsyncGenerator[Line | Failure, None]

_STREAM_JSON: Final = "application/json"
_NO_CHUNK_TYPE: Final = "application/x-ndjson"


@frozen
class Generation:
    """Serves one generation route."""

    backend: Backend
    dialect: Dialect

    async def serve(self, exchange: Exchange, body: bytes, entry: Entry) -> None:
        """Answer one request and keep its entry true at every moment."""
        call = self.dialect.understand(body)
        if isinstance(call, Refusal):
            await self._refuse(exchange, call, entry=entry)
            return
        entry.model, entry.stream = call.model, call.stream
        model = self._model(call)
        if isinstance(model, Refusal):
            await self._refuse(exchange, model, call=call, entry=entry)
            return
        reply = _Reply(exchange, self.dialect, self.dialect.voice(call, body), self.backend.clock, entry)
        is_stream = call.stream and not (call.is_load and self.dialect.loads_whole)
        steps = self._steps(call, model, entry)
        await self.backend.tally.notify()
        await (reply.stream if is_stream else reply.single)(steps)

    def _model(self, call: Call) -> Model | Refusal:
        model = self.backend.model(call.model)
        if model is None:
            return voice.missing_model(call.model)
        return voice.unable(call, model, route=self.dialect.path) or model

    def _steps(self, call: Call, model: Model, entry: Entry) -> Steps:
        if call.is_load:
            return self._load(call, model, entry)
        memory = self.backend.memory(model)
        greeting, pace_ms = self.backend.greeting, self.backend.pace_ms
        plan = script.plan(call, model, memory, greeting=greeting, pace_ms=pace_ms)
        entry.tag = plan.knobs.tag
        if plan.knobs.mode != "status":
            entry.input_tokens, entry.cached_tokens = plan.input_tokens, plan.cached_tokens
        return play(call, plan, memory=memory, gates=self.backend.gates, entry=entry)

    async def _load(self, call: Call, model: Model, entry: Entry) -> Steps:
        if call.unload:
            self.backend.unload(model)
        else:
            self.backend.memory(model)
        entry.end = "unload" if call.unload else "load"
        yield Line(reason=entry.end)

    async def _refuse(
        self, exchange: Exchange, refusal: Refusal, *, entry: Entry, call: Call | None = None
    ) -> None:
        entry.status, entry.end = refusal.status, "refused"
        headers = self.dialect.stream_headers if call and call.stream else ()
        await exchange.answer(refusal.status, *self.dialect.wording.refused(refusal), headers=headers)


@frozen
class _Reply:
    """The sending of one answer."""

    exchange: Exchange
    dialect: Dialect
    voice: Voice
    clock: Clock
    entry: Entry

    async def stream(self, steps: Steps) -> None:
        """Send every step as it comes; a failure in place of the first is an error reply."""
        async with aclosing(steps):
            async for step in steps:
                if isinstance(step, Failure) and not self.exchange.is_started:
                    await self._fail(step)
                    return
                for chunk in self._chunks(step):
                    await self._start(self.dialect.stream_type)
                    await self.exchange.chunk(chunk)
        # A stream that ends before its first chunk has kept the type of the layer below.
        await self._start(_NO_CHUNK_TYPE)
        await self.exchange.finish()

    async def single(self, steps: Steps) -> None:
        """Send the whole when it is complete; a failure leaves nothing of it."""
        whole = Line()
        wording = self.dialect.wording
        async with aclosing(steps):
            async for step in steps:
                if isinstance(step, Failure):
                    self.entry.status = step.status
                    refusal = Refusal(step.status, step.text)
                    await self.exchange.answer(step.status, *wording.refused(refusal))
                    return
                whole = _joined(whole, step)
        self.entry.status = 200
        await self.exchange.answer(200, *wording.whole(self.voice.single(whole, self.clock())))

    def _chunks(self, step: Line | Failure) -> list[bytes]:
        if isinstance(step, Failure):
            return self.voice.failure(step.text, self.clock())
        return self.voice.line(step, self.clock())

    async def _start(self, content_type: str, *, status: int = 200) -> None:
        if self.exchange.is_started:
            return
        self.entry.status = status
        await self.exchange.start(status, content_type, headers=self.dialect.stream_headers)

    async def _fail(self, failure: Failure) -> None:
        _, body = self.dialect.wording.refused(Refusal(failure.status, failure.text))
        await self._start(_STREAM_JSON, status=failure.status)
        await self.exchange.chunk(body)
        await self.exchange.finish()


def _joined(whole: Line, step: Line) -> Line:
    return evolve(
        step,
        content=whole.content + step.content,
        thinking=whole.thinking + step.thinking,
        tool_calls=whole.tool_calls + step.tool_calls,
        logprobs=whole.logprobs + step.logprobs,
    )

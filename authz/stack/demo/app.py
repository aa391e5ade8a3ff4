"""The demo backend as a raw ASGI application."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

import msgspec
from attrs import define, field

from authz.stack.demo import anthropic, native, openai, responses
from authz.stack.demo.call import EMBEDDINGS, Call, Refusal, read
from authz.stack.demo.catalogue import DEFAULT_MODELS, Catalogue
from authz.stack.demo.embeddings import embedded
from authz.stack.demo.exchange import Exchange, Receive, Scope, Send
from authz.stack.demo.speech import Speak, greet
from authz.stack.demo.voice import Answer, Shape, Voice, error

GENERATIONS: Final = native.ROUTES | openai.ROUTES | responses.ROUTES | anthropic.ROUTES
METERED: Final = frozenset({*GENERATIONS, *EMBEDDINGS})
_ONE_MODEL: Final = "/v1/models/"
_VERSION: Final = "0.0.0"
"""The version of an Ollama that was not built for a release."""


def _now() -> datetime:
    return datetime.now(UTC)


@define
class Demo:
    """The application: it has these models, and they all say the same."""

    models: tuple[str, ...] = DEFAULT_MODELS
    speak: Speak = greet
    clock: Callable[[], datetime] = _now
    catalogue: Catalogue = field(init=False)
    _reads: Mapping[str, Callable[[], Shape]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Lay out the routes."""
        since = self.clock()
        self.catalogue = Catalogue(self.models, since.isoformat(), int(since.timestamp()))
        self._reads = {
            "/api/version": lambda: {"version": _VERSION},
            "/api/tags": self.catalogue.tags,
            "/api/ps": lambda: {"models": []},
            "/v1/models": self.catalogue.openai_models,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; only HTTP is spoken."""
        if scope["type"] == "http":
            exchange = Exchange(scope, receive, send)
            await self.serve(exchange, self.speak)

    async def serve(self, exchange: Exchange, speak: Speak) -> None:
        """Serve one request with a voice of its own."""
        try:
            await self._route(exchange, speak)
        except Refusal as refusal:
            await exchange.answer(refusal.status, error(exchange.path, refusal))

    async def _route(self, exchange: Exchange, speak: Speak) -> None:
        path = exchange.path
        match exchange.method:
            case "POST" if path in METERED:
                call = read(path, await exchange.body())
                self._check(call.model)
                await self._answer(exchange, call, speak)
            case "POST" if path == "/api/show":
                await exchange.answer(200, self._show(await exchange.body()))
            case "GET" | "HEAD" if path == "/":
                await exchange.answer(200, b"Ollama is running", media_type="text/plain; charset=utf-8")
            case "GET" | "HEAD" if path in self._reads:
                await exchange.answer(200, self._reads[path]())
            case "GET" if path.startswith(_ONE_MODEL):
                name = path.removeprefix(_ONE_MODEL)
                self._check(name)
                await exchange.answer(200, self.catalogue.openai_model(name))
            case _:
                raise Refusal(404, "not found: the demo backend has no such route")

    def _check(self, name: str) -> None:
        if not self.catalogue.has(name):
            raise Refusal(404, f"model '{name}' not found")

    def _show(self, body: bytes) -> Shape:
        try:
            asked = msgspec.json.decode(body, type=dict[str, object])
        except msgspec.DecodeError as invalid:
            raise Refusal(400, f"invalid request: {invalid}") from invalid
        name = str(asked.get("model") or asked.get("name") or "")
        self._check(name)
        return self.catalogue.show(name, is_verbose=asked.get("verbose") is True)

    async def _answer(self, exchange: Exchange, call: Call, speak: Speak) -> None:
        if call.is_embedding:
            async for _ in speak(call):
                pass  # a voice may wait
            await exchange.answer(200, embedded(call))
            return
        now = self.clock()
        voice = GENERATIONS[call.path](call, now.isoformat(), int(now.timestamp()))
        if call.is_stream:
            await _stream(exchange, call, speak, voice)
        else:
            words = [word async for word in _words(call, speak)]
            await exchange.answer(200, voice.whole(_counted(call, words)))


async def _stream(exchange: Exchange, call: Call, speak: Speak, voice: Voice) -> None:
    words: list[str] = []
    head = voice.begin()
    async for word in _words(call, speak):
        if not words:
            await exchange.start(200, voice.media_type)
        await exchange.chunk(head + voice.word(word))
        words.append(word)
        head = b""
    if not words:
        await exchange.start(200, voice.media_type)
    await exchange.finish(head + voice.end(_counted(call, words)))


async def _words(call: Call, speak: Speak) -> AsyncGenerator[str, None]:
    """Yield the words of an answer, no more than are wanted; of nothing to answer to, none."""
    left = call.max_output
    if not call.texts:
        return
    async with aclosing(speak(call)) as words:
        while left != 0 and (word := await anext(words, None)) is not None:
            left = None if left is None else left - 1
            yield word


def _counted(call: Call, words: list[str]) -> Answer:
    is_cut = call.max_output == len(words)
    return Answer("".join(words), call.input_tokens if call.texts else 0, len(words), is_cut=is_cut)

"""The demo backend as tests need it: knobs in the prompt, gates, and a tally of the truth."""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from functools import partial
from http import HTTPStatus
from typing import Final

from attrs import define, field

from authz.stack.demo.app import METERED, Demo
from authz.stack.demo.call import Call, Refusal
from authz.stack.demo.exchange import Exchange, Receive, Scope, Send
from authz.stack.demo.speech import Speak
from tests.backend import knobs
from tests.backend.client import given, until_disconnect
from tests.backend.control import PREFIX, Control
from tests.backend.gates import Gates
from tests.backend.tally import KEPT_BODY_BYTES, Entry, Hit, Tally


class _Fault(Exception):
    """An answer breaks off in its middle; the kind of the fault."""


WORDS: Final = ("Rayleigh", "scatter", "makes", "the", "atmosphere", "look", "blue")
"""The word that an answer repeats, once a token."""


@define
class Backend:
    """The application; two of them share nothing."""

    demo: Demo
    tally: Tally = field(factory=Tally)
    gates: Gates = field(factory=Gates)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and note it before anything of it is read."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        if exchange.path.startswith(PREFIX):
            await Control(self.tally, self.gates).serve(exchange)
            return
        hit = Hit(exchange.method, _target(scope), _headers(scope))
        self.tally.hits.append(hit)
        if exchange.method == "POST" and exchange.path in METERED:
            async with self.tally.entry(exchange.path) as entry:
                noting = _noting(exchange, hit, entry)
                whole = Exchange(scope, given(await noting.body()), noting.send)
                await until_disconnect(exchange, self._serve(whole, partial(self._speak, entry)))
        else:
            await self.demo.serve(_noting(exchange, hit, None), self.demo.speak)

    async def _serve(self, exchange: Exchange, speak: Speak) -> None:
        """Serve; a fault ends a stream without its last frame, as Ollama does."""
        try:
            await self.demo.serve(exchange, speak)
        except _Fault as fault:
            await exchange.finish(b'{"content": broken\n' if str(fault) == "garbage" else b"")

    async def _speak(self, entry: Entry, call: Call) -> AsyncGenerator[str, None]:
        """Count each word just before it leaves."""
        wishes = knobs.read(call.question)
        entry.tag, entry.model = wishes.tag, call.model
        await self.tally.notify()
        if call.is_embedding:
            await asyncio.sleep(wishes.delay_ms / 1000)
            await self.gates.take(wishes.hold)
            entry.input_tokens = call.input_tokens
            return
        entry.input_tokens = call.input_tokens
        if wishes.mode == "status":
            raise Refusal(wishes.code, "scripted failure")
        for index, word in enumerate(itertools.islice(itertools.cycle(WORDS), wishes.tokens)):
            await asyncio.sleep(wishes.delay_ms / 1000)
            await self.gates.take(wishes.hold)
            if wishes.mode and index == wishes.at:
                # An answer that has not begun yet becomes an error.
                raise _Fault(wishes.mode) if call.is_stream and index else Refusal(500, "scripted failure")
            entry.output_tokens += 1
            yield f" {word}" if index else word
        await self.gates.take(wishes.hold)


def backend(*models: str) -> Backend:
    """Make a backend that has these models."""
    return Backend(Demo(models))


def _noting(exchange: Exchange, hit: Hit, entry: Entry | None) -> Exchange:
    """Note the body of a request as it is read, and the end of its answer as it is sent."""

    async def receive() -> Scope:
        message = await exchange.receive()
        room = KEPT_BODY_BYTES - len(hit.body)
        hit.body += message.get("body", b"")[:room].decode(errors="replace")
        return message

    async def send(message: Scope) -> None:
        if entry is not None and message.get("status", HTTPStatus.OK) != HTTPStatus.OK:
            entry.finish("refused")
        # Before it leaves: whoever has read the whole answer finds it ended.
        elif entry is not None and not message.get("more_body", message["type"] != "http.response.body"):
            entry.finish("stop")
        await exchange.send(message)

    return Exchange(exchange.scope, receive, send)


def _target(scope: Scope) -> str:
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("latin-1")


def _headers(scope: Scope) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]

"""The demo backend as a raw ASGI application: every route of Ollama that matters to a gateway."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from attrs import define, field

from authz.demo import anthropic, embeddings, native, openai_chat, openai_completions, responses
from authz.demo.backend import DEFAULT_MODELS, GREETING, Backend, now
from authz.demo.catalogue import Catalogue
from authz.demo.control import PREFIX, Control
from authz.demo.exchange import Exchange, Receive, Scope, Send
from authz.demo.generation import Generation
from authz.demo.tally import KEPT_BODY_BYTES, Entry, Hit
from authz.demo.types import CHARSET_JSON, Clock, Model
from authz.demo.vectors import Embedding

Serve = Callable[[Exchange, bytes, Entry], Coroutine[Any, Any, None]]
Read = Callable[[Exchange], Awaitable[None]]

_TEXT: Final = "text/plain"
_MUTATIONS: Final = frozenset(
    f"/api/{name}" for name in ("pull", "push", "create", "copy", "delete", "me", "signout")
)
_MUTATION_PREFIXES: Final = ("/api/blobs/", "/api/user/keys/", "/api/experimental/", "/api/codex/")


@define
class Demo:
    """The application over one backend."""

    backend: Backend
    _metered: Mapping[str, Serve] = field(init=False)
    _reads: dict[str, dict[str, Read]] = field(init=False)
    _one_model: dict[str, Read] = field(init=False)
    _control: Control = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Lay out the routes."""
        self._control = Control(self.backend)
        self._metered = {
            dialect.path: Generation(self.backend, dialect).serve
            for dialect in (
                native.CHAT,
                native.GENERATE,
                openai_chat.CHAT,
                openai_completions.COMPLETIONS,
                responses.RESPONSES,
                anthropic.MESSAGES,
            )
        } | {
            embedder.path: Embedding(self.backend, embedder).serve
            for embedder in (embeddings.EMBED, embeddings.EMBEDDINGS, embeddings.OPENAI)
        }
        catalogue = Catalogue(self.backend)
        self._reads = {
            "/": {"HEAD": _running, "GET": _running},
            "/api/version": {"HEAD": catalogue.version, "GET": catalogue.version},
            "/api/tags": {"HEAD": catalogue.tags, "GET": catalogue.tags},
            "/api/ps": {"GET": catalogue.loaded},
            "/api/show": {"POST": catalogue.show},
            "/v1/models": {"GET": catalogue.openai_models},
        }
        self._one_model = {"GET": catalogue.openai_model}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; nothing but HTTP is spoken."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        if exchange.path.startswith(PREFIX):
            await self._control.serve(exchange)
            return
        # Noted before anything is read: a test of "not one byte" must see every attempt.
        hit = Hit(exchange.method, _target(scope), _headers(scope))
        self.backend.tally.hits.append(hit)
        await self._route(exchange, hit)

    async def _route(self, exchange: Exchange, hit: Hit) -> None:
        path, method = exchange.path, exchange.method
        if serve := self._metered.get(path):
            await (self._serve(exchange, hit, serve) if method == "POST" else _other(exchange, "POST"))
            return
        if path in _MUTATIONS or path.startswith(_MUTATION_PREFIXES):
            await self._serve(exchange, hit, _mutate)
            return
        reads = self._one_model if path.startswith("/v1/models/") else self._reads.get(path)
        if reads is None:
            await exchange.answer(404, _TEXT, b"404 page not found")
        elif read := reads.get(method):
            await read(exchange)
        else:
            await _other(exchange, ", ".join(reads))

    async def _serve(self, exchange: Exchange, hit: Hit, serve: Serve) -> None:
        async with self.backend.tally.entry(exchange.path) as entry:
            body = await exchange.body()
            hit.body = body[:KEPT_BODY_BYTES].decode(errors="replace")
            await exchange.while_there(serve(exchange, body, entry))


def create(
    models: Sequence[Model] = DEFAULT_MODELS,
    *,
    greeting: str = GREETING,
    pace_ms: int = 0,
    clock: Clock = now,
) -> Demo:
    """Make a demo backend that has exactly these models."""
    return Demo(Backend(models, greeting, clock, pace_ms))


async def _running(exchange: Exchange) -> None:
    await exchange.answer(200, "text/plain; charset=utf-8", b"Ollama is running")


async def _mutate(exchange: Exchange, body: bytes, entry: Entry) -> None:
    # Done gladly, so that a test which finds such an entry has found a hole in the gateway.
    del body
    entry.status, entry.end = 200, "mutation"
    await exchange.answer(200, CHARSET_JSON, b'{"status":"success"}')


async def _other(exchange: Exchange, allowed: str) -> None:
    headers = ((b"allow", allowed.encode()),)
    await exchange.answer(405, _TEXT, b"405 method not allowed", headers=headers)


def _target(scope: Scope) -> str:
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (raw + b"?" + query if query else raw).decode("latin-1")


def _headers(scope: Scope) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]

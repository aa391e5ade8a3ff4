"""The authz process: a Litestar application on a unix socket that only Caddy can reach.

`/verify` answers 204 with a Grant or the client's refusal with a Denial; the read routes answer at
their own path; `/readyz` tells what is missing, `/metrics` how things stand. Caddy hands no client's
`/metrics` on. Nothing else is there to be asked.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
import structlog
from litestar import Litestar
from litestar.handlers import asgi
from prometheus_client import CollectorRegistry

from authz import log as logging
from authz import messages
from authz import settings as settings_
from authz.backends.inventory import Inventory
from authz.decision import metrics, refusals, routes
from authz.decision.refusals import Refusal
from authz.decision.verify import Read, Verifier, utc_now
from authz.errors import LimiterUnavailable, StoreUnavailable
from authz.identity.identities import Identities
from authz.identity.secrets import Peppers
from authz.identity.sources import Sources
from authz.limiter.limiter import Limiter
from authz.limiter.queue import Queue
from authz.nodes import Nodes
from authz.rebuild import Rebuilder
from authz.store import Store
from authz.templates import Templates

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from litestar.types import Receive, Scope, Send

    from authz.messages import Ask
    from authz.settings import Settings

    Headers = Iterable[tuple[bytes, bytes]]

log = structlog.get_logger()

ASK_HEADER: Final = messages.ASK_HEADER.lower().encode()


def create() -> Litestar:
    """Build the application from the environment: uvicorn's factory."""
    logging.configure()
    return build(settings_.load(os.environ))


def build(settings: Settings) -> Litestar:
    """Build the application; nothing is opened before its lifespan starts."""
    gate = Gate(settings)
    return Litestar(
        route_handlers=[asgi("/", is_mount=True, copy_scope=False)(gate.serve)],
        lifespan=[gate.lifespan],
        openapi_config=None,
        logging_config=None,
    )


class Gate:
    """HTTP in and out of the Verifier; owns what the process holds open."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._verifier: Verifier | None = None
        self._metrics = metrics.Metrics(CollectorRegistry())

    @asynccontextmanager
    async def lifespan(self, _: Litestar) -> AsyncIterator[None]:
        """Open everything; a store that is away when we start is found later."""
        settings = self._settings
        store, limiter = Store(settings.database_url), Limiter(settings.redis_url)
        await limiter.start()
        async with httpx.AsyncClient(trust_env=False) as client:
            inventory = Inventory(settings.backends, client, poll_s=settings.poll_s)
            identities = Identities(store, Peppers.read(settings.pepper_file))
            rebuilder = Rebuilder(store, limiter)
            templates = Templates(store, least=settings.template_tokens)
            nodes = Nodes(store, limiter, now_s=time.monotonic)
            self._verifier = Verifier(
                settings=settings,
                store=store,
                limiter=limiter,
                inventory=inventory,
                identities=identities,
                rebuilder=rebuilder,
                nodes=nodes,
                queue=Queue(wait_s=settings.queue_ms / 1000, now_s=time.monotonic),
                sources=Sources(now_s=time.monotonic),
                templates=templates,
                now=utc_now,
            )
            self._metrics.watch(self._verifier)
            polling = [asyncio.create_task(poll.run()) for poll in (inventory, templates, nodes)]
            try:
                await _notice_losses(rebuilder)
                yield
            finally:
                for task in polling:
                    task.cancel()
                await asyncio.gather(*polling, return_exceptions=True)
                await identities.close()
                await rebuilder.close()
                await limiter.close()
                await store.close()

    @property
    def verifier(self) -> Verifier:
        """The Verifier, between the start and the end of the lifespan."""
        if self._verifier is None:
            raise RuntimeError("the application has not been started")
        return self._verifier

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer whatever comes over the socket; the raw path decides, and nobody decodes it."""
        path = scope["raw_path"]
        if path == b"/readyz":
            await self._ready(send)
            return
        if path == b"/metrics":
            await _send(send, 200, {"content-type": metrics.CONTENT_TYPE}, self._metrics.text())
            return
        ask = _ask(scope)
        if ask is None:
            await _send(send, 400, {}, b"")
        elif path == b"/verify":
            await self._verify(ask, scope["headers"], receive, send)
        else:
            await self._read(ask, scope["headers"], send)

    async def _verify(self, ask: Ask, headers: Headers, receive: Receive, send: Send) -> None:
        """204 and a Grant, or the client's answer and a Denial."""
        began = time.perf_counter()
        gone = partial(_disconnected, receive)
        decision = await self.verifier.verify(ask, headers, gone)
        self._metrics.observe(decision, time.perf_counter() - began)
        if isinstance(decision, Refusal):
            await _refuse(send, ask, decision)
        else:
            await _send(send, 204, {messages.GRANT_HEADER: messages.write(decision).decode()}, b"")

    async def _read(self, ask: Ask, headers: Headers, send: Send) -> None:
        """The answer itself, with whom it was given to."""
        began = time.perf_counter()
        decision = await self.verifier.read(ask, headers)
        self._metrics.observe(decision, time.perf_counter() - began)
        if isinstance(decision, Refusal):
            await _refuse(send, ask, decision)
        else:
            await _answer_read(send, ask, decision)

    async def _ready(self, send: Send) -> None:
        """200, or 503 with what is missing."""
        missing = await self._missing()
        body = msgspec.json.encode({"status": "not ready" if missing else "ok", "missing": missing})
        await _send(send, 503 if missing else 200, {"content-type": "application/json"}, body)

    async def _missing(self) -> list[str]:
        verifier, missing = self.verifier, []
        nodes: frozenset[Any] = frozenset()
        try:
            nodes = await verifier.store.nodes()
        except StoreUnavailable as error:
            missing.append(str(error))
        try:
            lags = [await verifier.limiter.lag_ms(node) for node in nodes]
            if not any(lag is not None for lag in lags):
                missing.append("No metering has vouched for a journal: check that metering and Caddy run.")
        except LimiterUnavailable as error:
            missing.append(str(error))
        if not verifier.inventory.is_live:
            missing.append("No backend answers: check OLLAMA_URL or OLLAMA_BACKENDS and that Ollama runs.")
        if not verifier.rebuilder.is_idle:
            missing.append("Counters are being restored from Postgres: wait a few seconds.")
        return missing


async def _notice_losses(rebuilder: Rebuilder) -> None:
    try:
        await rebuilder.notice_all()
    except StoreUnavailable as error:
        log.warning("authz.store_unavailable", error=str(error))


async def _disconnected(receive: Receive) -> None:
    """Return when Caddy has hung up, which it does when its client has."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _ask(scope: Scope) -> Ask | None:
    """The Ask of a request; None for whoever is not the guard."""
    found = [value for name, value in scope["headers"] if name == ASK_HEADER]
    try:
        return messages.read_ask(found[0]) if len(found) == 1 else None
    except msgspec.DecodeError as error:
        log.warning("authz.ask_rejected", error=str(error))
        return None


async def _answer_read(send: Send, ask: Ask, read: Read) -> None:
    holder = messages.Grant(
        id=ask.id,
        tenant=read.identity.tenant,
        key=read.identity.key,
        backends=(),
        max_output=None,
        reserved=messages.Reserved(0, 0),
        windows=messages.WindowIds("", ""),
        drop=(),
        headers={},
        deadline_s=0,
    )
    headers = read.answer.headers | {messages.GRANT_HEADER: messages.write(holder).decode()}
    await _send(
        send,
        read.answer.status,
        headers,
        b"" if ask.method == "HEAD" else read.answer.body,
        len(read.answer.body),
    )


async def _refuse(send: Send, ask: Ask, refusal: Refusal) -> None:
    identity = refusal.identity
    answer = refusals.word(refusal, dialect=routes.dialect_of(ask.path), request_id=ask.id)
    denial = messages.Denial(
        id=ask.id,
        tenant=identity.tenant if identity else None,
        key=identity.key if identity else None,
        reason=refusal.reason,
    )
    headers = answer.headers | {messages.DENIAL_HEADER: messages.write(denial).decode()}
    await _send(send, answer.status, headers, answer.body)


async def _send(
    send: Send, status: int, headers: dict[str, str], body: bytes, length: int | None = None
) -> None:
    raw: Sequence[tuple[bytes, bytes]] = [
        (name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()
    ]
    if status != 204:  # noqa: PLR2004
        raw = [*raw, (b"content-length", b"%d" % (len(body) if length is None else length))]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})

"""The authz process: a Litestar application on a unix socket that only Caddy can reach.

`/verify` answers 204 with a Grant, or the client's refusal with a Denial; the read routes answer at
their own path. `/readyz` names what is missing, `/me` is a page, `/metrics` is for Prometheus.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import structlog
from attrs import evolve
from litestar import Litestar, Request, Response, asgi, get, route
from litestar.datastructures import State
from litestar.enums import HttpMethod
from prometheus_client import CollectorRegistry

from authz import log as logging
from authz import messages, prometheus, readiness, supervise
from authz import settings as settings_
from authz.alerts.poster import Poster
from authz.alerts.webhook import Webhook
from authz.backends.inventory import Inventory
from authz.backends.rendered import Rendered
from authz.backends.vocabularies import Vocabularies
from authz.decision import metrics, own_page, refusals, routes
from authz.decision.aliases import Aliases
from authz.decision.forecasts import Forecasts
from authz.decision.own_use import OwnUse
from authz.decision.read_routes import Read, Reads
from authz.decision.refusals import Answer, Refusal
from authz.decision.verify import Verifier
from authz.errors import SettingsError, complaint
from authz.identity.identities import Identities
from authz.identity.secrets import Peppers
from authz.identity.sources import Sources
from authz.limiter.limiter import Limiter
from authz.limiter.queue import Queue
from authz.nodes import Nodes
from authz.protocol import DECIDE, disconnected, lines
from authz.rebuild import Rebuilder
from authz.store import AUTHZ_ROLE, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from litestar.types import Receive, Scope, Send

    from authz.decision.read_routes import Headers
    from authz.limiter.queue import Disconnected
    from authz.messages import Ask
    from authz.settings import Settings

log = structlog.get_logger()

AnyRequest = Request[Any, Any, State]
T = TypeVar("T")

ASK_HEADER: Final = messages.ASK_HEADER.lower().encode()
GRANT: Final = messages.GRANT_HEADER.lower()
KNOWN: Final = messages.KNOWN_HEADER.lower()
DENIAL: Final = messages.DENIAL_HEADER.lower()

FIRST_LOOK_S: Final = 1.0
"""How long a new process waits for the backends' first answers before it serves."""

COLLECTED_AT: Final = 10_000
"""New objects until Python looks for circles; by default fewer than a few decisions at a time make."""


def create() -> Litestar:
    """Build the application from the environment: uvicorn's factory; exits with 2 if a setting is wrong."""
    logging.configure()
    try:
        settings = settings_.load(os.environ)
        Peppers.read(settings.pepper_file)
        Webhook.of(settings)
    except SettingsError as error:
        sys.stderr.write(complaint(error))
        sys.exit(2)
    gc.freeze()  # what is loaded by now lives as long as the process
    gc.set_threshold(COLLECTED_AT)
    return build(settings)


def build(settings: Settings, *, sources_s: Callable[[], float] = time.monotonic) -> Litestar:
    """Build the application; its lifespan opens everything. Sources of wrong keys age by `sources_s`."""
    gate = Gate(settings, sources_s=sources_s)
    return Litestar(
        route_handlers=[
            asgi("/verify", copy_scope=False)(gate.verify),
            route([*routes.READ_PATHS], http_method=[*HttpMethod], exclude_from_csrf=True)(gate.read),
            get("/readyz")(gate.ready),
            get("/me")(own_page.page),
            get("/metrics")(gate.scrape),
            get("/backends")(gate.backends),
        ],
        lifespan=[gate.lifespan],
        state=State({DECIDE: gate.decide}),
        openapi_config=None,
        logging_config=None,
    )


class Gate:
    """HTTP in and out of the Verifier; owns what the process holds open."""

    def __init__(self, settings: Settings, *, sources_s: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._sources_s = sources_s
        self._rendered = Rendered(settings.snippets)
        self._verifier: Verifier | None = None
        self._metrics = metrics.Metrics(CollectorRegistry())
        self._deciding = 0

    @asynccontextmanager
    async def lifespan(self, _: Litestar) -> AsyncIterator[None]:
        """Open everything; a store that is away when we start is found later."""
        settings = self._settings
        store = Store(settings.database_url, role=AUTHZ_ROLE)
        limiter, bulk = Limiter(settings.redis_url), Limiter(settings.redis_url)
        await asyncio.gather(limiter.start(), bulk.start())
        since = self._rendered.stamp()
        # OLLAMA_BACKENDS of the environment is as old as this process: a list rendered later replaces it.
        inventory = Inventory(settings.backends or self._rendered.load(), poll_s=settings.poll_s)
        identities = Identities(store, Peppers.read(settings.pepper_file), now_s=time.monotonic)
        rebuilder = Rebuilder(store, bulk)  # no decision waits behind a rebuild
        aliases = Aliases(store)
        forecasts = Forecasts(store, assumed=settings.expected_output)
        nodes = Nodes(store, limiter, now_s=time.monotonic)
        self._verifier = Verifier(
            settings=settings,
            store=store,
            limiter=limiter,
            inventory=inventory,
            aliases=aliases,
            forecasts=forecasts,
            reads=Reads(inventory, limiter, aliases, forecasts, OwnUse(store, limiter, now_s=time.monotonic)),
            identities=identities,
            rebuilder=rebuilder,
            nodes=nodes,
            queue=Queue(wait_s=settings.queue_ms / 1000, now_s=time.monotonic),
            sources=Sources(now_s=self._sources_s),
            now=lambda: datetime.now(UTC),
        )
        self._metrics.watch(self._verifier)
        vocabularies = Vocabularies(inventory, settings.tables, poll_s=settings.poll_s, aliases=aliases.all)
        polling = supervise.begin(
            inventory=inventory.run,
            vocabularies=vocabularies.run,
            nodes=nodes.run,
            aliases=aliases.run,
            forecasts=forecasts.run,
            handles=identities.handles.run,
            alerts=Poster.of(settings, store, inventory).run,
            rendered=partial(self._rendered.follow, inventory.use, since=since),
        )
        try:
            await asyncio.gather(aliases.read(), forecasts.read())
            await inventory.looked(within_s=FIRST_LOOK_S)
            await rebuilder.notice_all()
            yield
        finally:
            await supervise.end(polling)
            await identities.close()
            await rebuilder.close()
            await asyncio.gather(limiter.close(), bulk.close())
            await store.close()

    @property
    def verifier(self) -> Verifier:
        """The Verifier, between the start and the end of the lifespan."""
        if self._verifier is None:
            raise RuntimeError("the application has not been started")
        return self._verifier

    async def verify(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 204 with a Grant, or the client's answer with a Denial: the way of every metered request."""
        answer = await self.decide(scope["headers"], partial(disconnected, receive))
        await send({"type": "http.response.start", "status": answer.status, "headers": lines(answer)})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def decide(self, headers: Headers, is_gone: Disconnected) -> Answer:
        """Decide about a metered request, whichever way it came here."""
        ask = _ask(headers)
        if ask is None:
            return Answer(400, {}, b"")
        if ask.problem == messages.BODY_UNREAD:
            return await self._known(ask, headers)
        began = time.perf_counter()
        asking = partial(self.verifier.verify, ask, headers, is_gone)
        decision = await self._bounded(ask, asking)
        self._observe(decision, time.perf_counter() - began)
        if isinstance(decision, Refusal):
            return _refused(ask, decision)
        return Answer(204, {GRANT: messages.write(decision).decode()}, b"")

    async def _known(self, ask: Ask, headers: Headers) -> Answer:
        """Answer 204 for a key that may send requests; only a refusal is a decision, and counted."""
        found = await self._bounded(ask, partial(self.verifier.known, ask, headers))
        if isinstance(found, Refusal):
            self._metrics.denied[found.reason].inc()
            return _refused(ask, found)
        return Answer(204, {KNOWN: messages.write(messages.Known(id=ask.id)).decode()}, b"")

    async def read(self, request: AnyRequest) -> Response[bytes]:
        """Answer a read route, with the identity of its reader in a header for the record."""
        ask = _ask(request.scope["headers"])
        if ask is None:
            return _response(Answer(400, {}, b""))
        began = time.perf_counter()
        decision = await self._bounded(ask, partial(self.verifier.read, ask, request.scope["headers"]))
        self._observe(decision, time.perf_counter() - began)
        return _response(
            _refused(ask, decision) if isinstance(decision, Refusal) else _answered(ask, decision)
        )

    async def _bounded(self, ask: Ask, decide: Callable[[], Awaitable[T | Refusal]]) -> T | Refusal:
        """Decide, or refuse at once what would come too late behind all that is being decided."""
        if self._deciding >= self._settings.decisions:
            return Refusal(refusals.Reason.OVERLOADED)
        self._deciding += 1
        before = logging.about.set((ask.id, ask.trace_id))
        try:
            return await decide()
        finally:
            logging.about.reset(before)
            self._deciding -= 1

    async def ready(self) -> Response[bytes]:
        """Answer 200, or 503 with what is missing; either way with the backends that answer."""
        missing = await readiness.missing(self.verifier, self._rendered)
        live = {seen.backend.name: seen.is_live for seen in self.verifier.inventory.seen}
        found = {"status": "not ready" if missing else "ok", "missing": missing, "backends": live}
        return _json(found, status=503 if missing else 200)

    async def backends(self) -> Response[bytes]:
        """Answer `status` with what the backends say; Caddy passes no request of a client on to this."""
        described = [seen.described for seen in self.verifier.inventory.seen]
        return _json({"list": self._rendered.used, "backends": described}, status=200)

    async def scrape(self) -> Response[bytes]:
        """Answer a Prometheus; Caddy never passes a client's request for /metrics on."""
        return _response(Answer(200, {"content-type": prometheus.CONTENT_TYPE}, self._metrics.text()))

    def _observe(self, decision: object, seconds: float) -> None:
        """Count a decision by its reason, and the time that it took."""
        counter = self._metrics.granted
        if isinstance(decision, Refusal):
            counter = self._metrics.denied[decision.reason]
        counter.inc()
        self._metrics.seconds.observe(seconds)


def _ask(headers: Headers) -> Ask | None:
    """Parse the Ask of a request; return None if it does not come from the guard."""
    found = [value for name, value in headers if name == ASK_HEADER]
    try:
        return messages.read_ask(found[0]) if len(found) == 1 else None
    except msgspec.DecodeError as error:
        log.warning("authz.ask_rejected", error=str(error))
        return None


def _answered(ask: Ask, read: Read) -> Answer:
    """Return a read route's answer; its Grant only names tenant and key for the record."""
    holder = messages.holder(ask.id, tenant=read.identity.tenant, key=read.identity.key)
    return evolve(read.answer, headers=read.answer.headers | {GRANT: messages.write(holder).decode()})


def _refused(ask: Ask, refusal: Refusal) -> Answer:
    """Return the client's answer, with a Denial for the guard."""
    identity = refusal.identity
    tenant, key = (identity.tenant, identity.key) if identity else (None, None)
    denial = messages.Denial(id=ask.id, tenant=tenant, key=key, reason=refusal.reason)
    dialect, is_signed = routes.dialect_of(ask.path), ask.signed is not None
    answer = refusals.word(refusal, dialect=dialect, request_id=ask.id, is_signed=is_signed)
    return evolve(answer, headers=answer.headers | {DENIAL: messages.write(denial).decode()})


def _response(answer: Answer) -> Response[bytes]:
    headers = dict(answer.headers)
    kind = headers.pop("content-type", None)
    return Response(answer.body, status_code=answer.status, headers=headers, media_type=kind)


def _json(value: object, *, status: int) -> Response[bytes]:
    return _response(Answer(status, {"content-type": "application/json"}, msgspec.json.encode(value)))

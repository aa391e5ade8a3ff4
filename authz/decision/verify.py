"""Decide about one request: an Ask in, a Grant or a Refusal out. Nothing here fails open.

Order of refusals: target, path, method, key, body, model and address, limits, then what can't be
vouched for. Decisions are values; failures of Postgres, Redis or time are caught in `_closed` alone.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from attrs import field, frozen
from msgspec.structs import replace

from authz import versions
from authz.decision import calendar, checks, limit_refusals, routes, signed
from authz.decision.refusals import Answer, Reason, Refusal
from authz.decision.terms import Terms
from authz.errors import LimiterUnavailable, StoreUnavailable
from authz.identity import secrets
from authz.limiter.admission import Admitted, LimitReached, NotDecided
from authz.models import canonical

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from datetime import datetime

    from authz.backends.inventory import Inventory, Seen
    from authz.decision.aliases import Aliases
    from authz.decision.calendar import Calendar
    from authz.decision.forecasts import Forecasts
    from authz.decision.read_routes import Reads
    from authz.identity.identities import Identities
    from authz.identity.sources import Sources
    from authz.limiter.admission import Admission, Decision
    from authz.limiter.limiter import Limiter
    from authz.limiter.queue import Disconnected, Queue
    from authz.messages import Ask, Grant
    from authz.nodes import Nodes
    from authz.rebuild import Rebuilder
    from authz.settings import Settings
    from authz.store import Store
    from authz.types import Identity

    Headers = Iterable[tuple[bytes, bytes]]

log = structlog.get_logger()

T = TypeVar("T")

DEADLINE_S: Final = 1.5
"""Over all waits of one decision; Caddy gives up after 2 s."""


@frozen
class Read:
    """A read route's answer, and the identity that asked for it."""

    identity: Identity
    answer: Answer


@frozen
class Stale:
    """No decision: the versions of the identity have moved since it was read from Postgres."""


@frozen
class Verifier:
    """Decides about requests, with the parts that it was built of."""

    settings: Settings
    store: Store
    limiter: Limiter
    inventory: Inventory
    aliases: Aliases
    forecasts: Forecasts
    reads: Reads
    identities: Identities
    rebuilder: Rebuilder
    nodes: Nodes
    queue: Queue
    sources: Sources
    now: Callable[[], datetime]
    calendars: dict[str, Calendar] = field(init=False, factory=dict)
    """The newest calendar of each time zone that was asked for."""

    async def verify(self, ask: Ask, headers: Headers, disconnected: Disconnected) -> Grant | Refusal:
        """Decide about a metered request, and refuse every other one.

        `disconnected` returns when the client has disconnected: its request then leaves the line.
        """
        return await _closed(self._verify(ask, headers, disconnected))

    async def read(self, ask: Ask, headers: Headers) -> Read | Refusal:
        """Answer a read route, after the same verification."""
        return await _closed(self._read(ask, headers))

    async def known(self, ask: Ask, headers: Headers) -> Identity | Refusal:
        """Answer for a key alone, before its body is read; nothing is admitted, charged or freed."""
        return await _closed(self._known(ask, headers))

    async def _known(self, ask: Ask, headers: Headers) -> Identity | Refusal:
        identity = await self._usable(ask, headers)
        return identity if isinstance(identity, Refusal) else checks.wrong_address(ask, identity) or identity

    async def _verify(self, ask: Ask, headers: Headers, disconnected: Disconnected) -> Grant | Refusal:
        if ask.done:
            await self._free(ask)
        route = checks.route_of(ask, self.now())
        if isinstance(route, Refusal):
            return route
        identity = await self._identify(ask, headers)
        if isinstance(identity, Refusal):
            return identity
        decision = await self._consider(ask, identity, route, disconnected)
        if not isinstance(decision, Stale):
            return decision
        if (fresh := await self._reload(identity)) is None:
            return Refusal(Reason.KEY_UNKNOWN)
        decision = await self._consider(ask, fresh, route, disconnected, is_fresh=True)
        return Refusal(Reason.REQUEST_CLOSED, fresh) if isinstance(decision, Stale) else decision

    async def _read(self, ask: Ask, headers: Headers) -> Read | Refusal:
        if ask.done:
            await self._free(ask)
        identity = await self._usable(ask, headers)
        if isinstance(identity, Refusal):
            return identity
        refusal = checks.body_problem(ask, identity) or checks.wrong_address(ask, identity)
        if refusal is not None:
            return refusal
        answer = await self.reads.answer(identity, ask, headers, self.now())
        return answer if isinstance(answer, Refusal) else Read(identity, answer)

    async def _free(self, ask: Ask) -> None:
        """Free the slots of what has ended on the asking node, and wake the requests that wait for them."""
        await self.limiter.free([(done.id, done.tenant, done.key) for done in ask.done])
        for done in ask.done:
            self.queue.freed(done.tenant, done.key)

    async def _usable(self, ask: Ask, headers: Headers) -> Identity | Refusal:
        """Authenticate the secret, for a route that exists and a key that may be used right now."""
        route = checks.route_of(ask, self.now())
        identity = route if isinstance(route, Refusal) else await self._identify(ask, headers)
        if isinstance(identity, Refusal):
            return identity
        current = identity if await self._is_current(identity) else await self._reload(identity)
        if current is None:
            return Refusal(Reason.KEY_UNKNOWN)
        return checks.unusable(ask, current, self.now()) or current

    async def _identify(self, ask: Ask, headers: Headers) -> Identity | Refusal:
        """Authenticate the secret; what its key may do right now is for `_consider` to check."""
        if ask.problem == "credential":
            return Refusal(Reason.CREDENTIAL_CONFLICT)
        secret = secrets.presented(headers, ask.in_path) if ask.signed is None else signed.key_of(ask.signed)
        if secret is None or ask.lookup != secrets.handle(secret):
            return Refusal(Reason.KEY_MISSING)
        identity = self.identities.known(secret) or await self._load(ask, secret)
        if ask.signed is None or isinstance(identity, Refusal):
            return identity
        now = self.now()
        return await signed.wrong(ask, ask.signed, identity, limiter=self.limiter, now=now) or identity

    async def _load(self, ask: Ask, secret: str) -> Identity | Refusal:
        """Look a secret up in Postgres, unless its source has tried too many that are wrong."""
        async with self.identities.turn(secret) as handle:
            identity = self.identities.known(secret)
            if identity is None and not self.sources.may_try(ask.ip, handle=handle):
                return Refusal(Reason.SOURCE_LIMITED)
            identity = identity or await self.identities.load(secret)
            if identity is None:
                self.sources.failed(ask.ip, handle=handle)
            return identity or Refusal(Reason.KEY_UNKNOWN)

    async def _consider(
        self,
        ask: Ask,
        identity: Identity,
        route: routes.Route,
        disconnected: Disconnected,
        *,
        is_fresh: bool = False,
    ) -> Grant | Refusal | Stale:
        """Decide for this identity, as long as its versions are current.

        An admission compares the versions itself; a refusal without one has to ask for them, unless
        the identity is fresh from Postgres.
        """
        model = None
        if not self.aliases.is_empty:
            model = self.aliases.meant(identity.tenant, ask.model, self.inventory)
            ask = replace(ask, model=model or ask.model)
        refusal = (
            checks.unusable(ask, identity, self.now())
            or checks.body_problem(ask, identity)
            or checks.not_metered(route, identity)
            or checks.not_for_this_key(ask, identity)
        )
        backends = self.inventory.serving(ask.model or "") if refusal is None else ()
        refusal = refusal or await self._unserved(ask, identity, backends)
        if refusal is not None:
            return refusal if is_fresh or await self._is_current(identity) else Stale()
        forecasts = self.forecasts
        forecast = forecasts.of.get((identity.tenant, canonical(ask.model or "")), forecasts.usual)
        terms = Terms(ask, identity, route, backends, self.settings, self.nodes.alive, forecast, model)
        return await self._admit(terms, disconnected)

    async def _unserved(self, ask: Ask, identity: Identity, backends: tuple[Seen, ...]) -> Refusal | None:
        """Refuse what no backend can serve, and what no metering vouches for."""
        if not backends:
            return checks.without_backend(ask.model or "", identity, self.inventory)
        if not await self.nodes.knows(ask.node):
            return Refusal(Reason.NODE_UNKNOWN, identity)
        if identity.has_budget and not await self.nodes.can_settle(ask.node):
            return Refusal(Reason.METERING_UNAVAILABLE, identity)
        return None

    async def _is_current(self, identity: Identity) -> bool:
        known = await self.limiter.versions(identity.tenant, identity.key)
        if known is None:
            self.rebuilder.notice(identity.tenant)
        return known == (identity.tenant_version, identity.key_version)

    async def _reload(self, identity: Identity) -> Identity | None:
        """Read an identity again, since Postgres has the last word on versions, and publish them."""
        fresh = await self.identities.reload(identity)
        if fresh is None or await versions.agree(self.store, self.limiter, fresh):
            return fresh
        return await self._reload(fresh)

    async def _admit(self, terms: Terms, disconnected: Disconnected) -> Grant | Refusal | Stale:
        identity = terms.identity
        admission = terms.admission(self._calendar(identity, self.now()))
        decision = await self._decide(admission, disconnected)
        if isinstance(decision, NotDecided) and decision.reason == "calendar":  # Redis's clock counts
            admission = terms.admission(self._calendar(identity, decision.now))
            decision = await self._decide(admission, disconnected)
        if isinstance(decision, Admitted):
            return terms.grant(admission, decision, self.now())
        if isinstance(decision, LimitReached):
            return limit_refusals.limit_reached(
                decision,
                identity,
                calendar=self._calendar(identity, self.now()),
                retry_s=self.queue.retry_s(identity.key) if decision.is_passing else 0,
            )
        if decision is None:
            return Refusal(Reason.CLIENT_GONE, identity)
        if decision.reason == "stale":
            return Stale()
        if decision.reason == "lost":
            self.rebuilder.notice(identity.tenant)
        return Refusal(limit_refusals.NOT_DECIDED[decision.reason], identity)

    def _calendar(self, identity: Identity, now: datetime) -> Calendar:
        """Return the calendar of a moment; it changes once a day, so the newest one is kept."""
        newest = self.calendars.get(identity.timezone)
        if newest is None or not newest.valid_from <= now < newest.valid_until:
            newest = self.calendars[identity.timezone] = calendar.at(now, identity.timezone)
        return newest

    async def _decide(self, admission: Admission, disconnected: Disconnected) -> Decision | None:
        """Ask the limiter, in line where earlier requests wait; None if the client has disconnected there."""
        tenant, key = admission.tenant, admission.key
        first: Decision | None = None
        if tenant not in self.queue.lines and key not in self.queue.lines:
            first = await self.limiter.admit(admission)
            if not isinstance(first, LimitReached) and key not in self.queue.refused:
                return first
        attempt = partial(self.limiter.admit, admission)
        return await self.queue.decide(tenant, key, attempt, disconnected, first=first)


async def _closed(decision: Awaitable[T]) -> T | Refusal:
    """Refuse when a part fails or time runs out: the one place where a failure becomes an answer."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await decision
    except LimiterUnavailable as error:
        log.warning("authz.limiter_unavailable", error=str(error))
        return Refusal(Reason.LIMITER_UNAVAILABLE)
    except StoreUnavailable as error:
        log.warning("authz.store_unavailable", error=str(error))
        return Refusal(Reason.STORE_UNAVAILABLE)
    except TimeoutError:
        log.warning("authz.decision_timed_out")
        return Refusal(Reason.OVERLOADED)
    except Exception:  # a fault of ours: closed, logged, and counted like every other refusal
        log.exception("authz.decision_failed")
        return Refusal(Reason.DECISION_FAILED)

"""Decide about one request: an Ask in, a Grant or a Refusal out. Nothing here fails open.

Order of refusals: target, path, method, key, body, model and address, limits, then what can't be
vouched for. Decisions are values; failures of Postgres, Redis or time are caught in `_closed` alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from attrs import Factory, define, field, frozen
from msgspec.structs import replace

from authz import versions
from authz.decision import checks, limit_refusals, signed
from authz.decision.read_routes import Read
from authz.decision.refusals import Reason, Refusal
from authz.decision.terms import Calendars, Terms
from authz.errors import LimiterUnavailable, StoreUnavailable
from authz.identity import secrets
from authz.limiter.admission import Admitted, LimitReached, NotDecided
from authz.models import canonical

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from authz.backends.inventory import Inventory, Seen
    from authz.decision.aliases import Aliases
    from authz.decision.forecasts import Forecasts
    from authz.decision.read_routes import Headers, Reads
    from authz.decision.routes import Route
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

log = structlog.get_logger()

T = TypeVar("T")

DEADLINE_S: Final = 1.5
"""Over all waits of one decision; Caddy gives up after 2 s."""


@frozen
class Stale:
    """No decision: the versions of the identity have moved since it was read from Postgres."""


@define
class Deadline:
    """Ends decisions that are late. All may take as long, so one timer waits for the oldest of them."""

    within_s: float = DEADLINE_S
    _ends_at_s: dict[asyncio.Task[Any], float] = Factory(dict)
    """By the loop's clock, of every decision that is not late; the oldest comes first."""
    _timer: asyncio.TimerHandle | None = None

    async def over(self, decision: Awaitable[T]) -> T:
        """Return what is decided in time. Raises TimeoutError."""
        loop = asyncio.get_running_loop()
        task: Any = asyncio.current_task()  # there is one wherever anything is awaited
        self._ends_at_s[task] = loop.time() + self.within_s
        self._timer = self._timer or loop.call_later(self.within_s, self._end_late, loop)
        try:
            return await decision
        except asyncio.CancelledError as error:
            if task in self._ends_at_s or task.uncancel():  # somebody else has cancelled it, too
                raise
            raise TimeoutError from error
        finally:
            self._ends_at_s.pop(task, None)

    def _end_late(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for task, ends_at_s in tuple(self._ends_at_s.items()):
            if ends_at_s > loop.time():
                self._timer = loop.call_at(ends_at_s, self._end_late, loop)
                return
            del self._ends_at_s[task]
            task.cancel()


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
    deadline: Deadline = field(init=False, factory=Deadline)
    calendars: Calendars = field(init=False, factory=Calendars)

    async def verify(self, ask: Ask, headers: Headers, is_gone: Disconnected) -> Grant | Refusal:
        """Decide about a metered request, and refuse every other one.

        `is_gone` returns when the client has disconnected: its request then leaves the line.
        """
        return await _closed(self._verify(ask, headers, is_gone), self.deadline)

    async def read(self, ask: Ask, headers: Headers) -> Read | Refusal:
        """Answer a read route, after the same verification."""
        return await _closed(self._read(ask, headers), self.deadline)

    async def known(self, ask: Ask, headers: Headers) -> Identity | Refusal:
        """Answer for a key alone, before its body is read; nothing is admitted, charged or freed."""
        return await _closed(self._known(ask, headers), self.deadline)

    async def _known(self, ask: Ask, headers: Headers) -> Identity | Refusal:
        found = await self._usable(ask, headers)
        return found if isinstance(found, Refusal) else checks.wrong_address(ask, found) or found

    async def _verify(self, ask: Ask, headers: Headers, is_gone: Disconnected) -> Grant | Refusal:
        if ask.done:
            await self._free(ask)
        route = checks.route_of(ask, self.now())
        if isinstance(route, Refusal):
            return route
        identity = await self._identify(ask, headers)
        if isinstance(identity, Refusal):
            return identity
        decision = await self._consider(ask, identity, route, is_gone)
        if not isinstance(decision, Stale):
            return decision
        if (fresh := await self._reload(identity)) is None:
            return Refusal(Reason.KEY_UNKNOWN)
        decision = await self._consider(ask, fresh, route, is_gone, is_fresh=True)
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
        return await signed.wrong(ask, ask.signed, identity, limiter=self.limiter, now=self.now()) or identity

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
        self, ask: Ask, identity: Identity, route: Route, is_gone: Disconnected, *, is_fresh: bool = False
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
        forecast = self.forecasts.of.get((identity.tenant, canonical(ask.model or "")), self.forecasts.usual)
        terms = Terms(ask, identity, route, backends, self.settings, self.nodes.alive, forecast, model)
        return await self._admit(terms, is_gone)

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

    async def _admit(self, terms: Terms, is_gone: Disconnected) -> Grant | Refusal | Stale:
        identity = terms.identity
        admission = terms.admission(self.calendars.at(self.now(), identity.timezone))
        decision = await self._decide(admission, is_gone)
        if isinstance(decision, NotDecided) and decision.reason == "calendar":  # Redis's clock counts
            admission = terms.admission(self.calendars.at(decision.now, identity.timezone))
            decision = await self._decide(admission, is_gone)
        if isinstance(decision, Admitted):
            return terms.grant(admission, decision, self.now())
        if isinstance(decision, LimitReached):
            calendar = self.calendars.at(self.now(), identity.timezone)
            retry_s = self.queue.retry_s(identity.key) if decision.is_passing else 0
            return limit_refusals.limit_reached(decision, identity, calendar=calendar, retry_s=retry_s)
        if decision is None:
            return Refusal(Reason.CLIENT_GONE, identity)
        if decision.reason == "stale":
            return Stale()
        if decision.reason == "lost":
            self.rebuilder.notice(identity.tenant)
        return Refusal(limit_refusals.NOT_DECIDED[decision.reason], identity)

    async def _decide(self, admission: Admission, is_gone: Disconnected) -> Decision | None:
        """Ask the limiter, in line where earlier requests wait; None if the client has disconnected there."""
        tenant, key = admission.tenant, admission.key
        first: Decision | None = None
        if tenant not in self.queue.lines and key not in self.queue.lines:
            first = await self.limiter.admit(admission)
            if not isinstance(first, LimitReached) and key not in self.queue.refused:
                return first
        return await self.queue.decide(
            tenant, key, lambda: self.limiter.admit(admission), is_gone, first=first
        )


async def _closed(decision: Awaitable[T], deadline: Deadline) -> T | Refusal:
    """Refuse when a part fails or time runs out: the one place where a failure becomes an answer."""
    try:
        return await deadline.over(decision)
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

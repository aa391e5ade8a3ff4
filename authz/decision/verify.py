"""The story of one request: an Ask in, a Grant or a Refusal out. Nothing here fails open.

Order of refusals: target, path, method, key, body, model and address, limits, then whatever can't
be vouched for. Decisions are values; every failure of Postgres, Redis or time is caught in
`_closed`, and nowhere else.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from attrs import frozen

from authz.decision import calendar as windows
from authz.decision import ceilings, checks, grants, read_routes, routes, terms
from authz.decision.refusals import Answer, Refusal
from authz.errors import LimiterUnavailable, StoreUnavailable
from authz.identity import secrets
from authz.limiter.admission import Admission, Admitted, Refused, Unfit
from authz.limiter.queue import may_pass

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from authz.backends.inventory import Inventory, Seen
    from authz.identity.identities import Identities
    from authz.identity.sources import Sources
    from authz.limiter.limiter import Limiter
    from authz.limiter.queue import Queue
    from authz.messages import Ask, Grant
    from authz.nodes import Nodes
    from authz.rebuild import Rebuilder
    from authz.settings import Settings
    from authz.store import Store
    from authz.templates import Templates
    from authz.types import Identity

    Gone = Callable[[], Awaitable[None]]

log = structlog.get_logger()

T = TypeVar("T")

DEADLINE_S: Final = 1.5
"""Over all waits of one decision; Caddy gives up after 2 s."""

INVENTORY_AGE_S: Final = 1.0
"""A model or backend that is not there is looked for again, but not more often than this."""


@frozen
class Read:
    """A read route's answer, and whose key asked."""

    identity: Identity
    answer: Answer


@frozen
class Verifier:
    """Decides; holds nothing of its own but what it was built with."""

    settings: Settings
    store: Store
    limiter: Limiter
    inventory: Inventory
    identities: Identities
    rebuilder: Rebuilder
    nodes: Nodes
    queue: Queue
    sources: Sources
    templates: Templates
    now: Callable[[], datetime]

    async def verify(self, ask: Ask, headers: Iterable[tuple[bytes, bytes]], gone: Gone) -> Grant | Refusal:
        """Decide about a metered request, and word the refusal of everything that is none.

        `gone` returns when the client has left: nobody waits in line for somebody who is not there.
        """
        return await _closed(self._verify(ask, headers, gone))

    async def read(self, ask: Ask, headers: Iterable[tuple[bytes, bytes]]) -> Read | Refusal:
        """Answer a read route, after the same verification."""
        return await _closed(self._read(ask, headers))

    async def _verify(self, ask: Ask, headers: Iterable[tuple[bytes, bytes]], gone: Gone) -> Grant | Refusal:
        await self._free(ask)
        route = checks.route_of(ask, self.now())
        if isinstance(route, Refusal):
            return route
        identity = await self._identify(ask, headers)
        if isinstance(identity, Refusal):
            return identity
        decision = await self._consider(ask, identity, route, gone)
        if decision is not None:
            return decision
        fresh = await self._reload(identity)
        if fresh is None:
            return Refusal("key_unknown")
        decision = await self._consider(ask, fresh, route, gone, is_fresh=True)
        return decision or Refusal("request_closed", fresh)

    async def _read(self, ask: Ask, headers: Iterable[tuple[bytes, bytes]]) -> Read | Refusal:
        await self._free(ask)
        route = checks.route_of(ask, self.now())
        if isinstance(route, Refusal):
            return route
        identity = await self._identify(ask, headers)
        if isinstance(identity, Refusal):
            return identity
        if not await self._is_current(identity):
            fresh = await self._reload(identity)
            if fresh is None:
                return Refusal("key_unknown")
            identity = fresh
        refusal = (
            checks.unusable(identity, self.now())
            or checks.body_problem(ask, identity)
            or checks.wrong_address(ask, identity)
        )
        if refusal is not None:
            return refusal
        answer = await read_routes.answer(self.inventory, identity, ask.path, ask.model)
        return answer if isinstance(answer, Refusal) else Read(identity, answer)

    async def _free(self, ask: Ask) -> None:
        """Free the slots of what has ended on the asking node, and wake who waits for them."""
        await self.limiter.free([(done.id, done.tenant, done.key) for done in ask.done])
        for done in ask.done:
            self.queue.freed(done.key)

    async def _identify(self, ask: Ask, headers: Iterable[tuple[bytes, bytes]]) -> Identity | Refusal:
        """Whose secret this is; what its key may do right now is for `_consider` to ask."""
        if ask.problem == "credential":
            return Refusal("credential_conflict")
        secret = secrets.presented(headers)
        if secret is None or ask.lookup != secret[: secrets.LOOKUP_LENGTH]:
            return Refusal("key_missing")
        identity = self.identities.known(secret)
        if identity is not None:
            return identity
        if not self.sources.may_try(ask.ip):
            return Refusal("source_limited")
        self.sources.failed(ask.ip)  # before the wait, so that many at once are counted too
        identity = await self.identities.load(secret)
        if identity is None:
            return Refusal("key_unknown")
        self.sources.forgive(ask.ip)
        return identity

    async def _consider(
        self, ask: Ask, identity: Identity, route: routes.Route, gone: Gone, *, is_fresh: bool = False
    ) -> Grant | Refusal | None:
        """Decide for this identity; None if its versions have moved since it was read.

        An admission compares the versions itself; a refusal without one has to ask for them, unless
        the identity is fresh from Postgres.
        """
        refusal = (
            checks.unusable(identity, self.now())
            or checks.body_problem(ask, identity)
            or checks.not_metered(route, identity)
            or checks.not_for_this_key(ask, identity)
        )
        backends = await self._backends(ask.model or "") if refusal is None else ()
        refusal = refusal or await self._unserved(ask, identity, backends)
        if refusal is not None:
            return refusal if is_fresh or await self._is_current(identity) else None
        return await self._admit(ask, identity, route, backends=backends, gone=gone)

    async def _unserved(self, ask: Ask, identity: Identity, backends: tuple[Seen, ...]) -> Refusal | None:
        """Why nobody could serve the request, or vouch for its bill, whoever asks."""
        if not backends:
            is_gone = not self.inventory.is_live or self.inventory.backends_of(ask.model or "")
            reason = "backend_unavailable" if is_gone else "model_unknown"
            return Refusal(reason, identity, words={"model": ask.model or ""})
        if not await self.nodes.knows(ask.node):
            return Refusal("node_unknown", identity)
        if identity.has_budget and not await self.nodes.can_settle(ask.node):
            return Refusal("metering_unavailable", identity)
        return None

    async def _is_current(self, identity: Identity) -> bool:
        versions = await self.limiter.versions(identity.tenant, identity.key)
        if versions is None:
            self.rebuilder.notice(identity.tenant)
        return versions == (identity.tenant_version, identity.key_version)

    async def _reload(self, identity: Identity) -> Identity | None:
        """Postgres has the last word on versions; what is committed there Redis may know as well."""
        fresh = await self.identities.reload(identity)
        if fresh is not None:
            versions = {None: fresh.tenant_version, fresh.key: fresh.key_version}
            await self.limiter.raise_versions(fresh.tenant, versions)
        return fresh

    async def _backends(self, model: str) -> tuple[Seen, ...]:
        """The backends to name in the Grant; looks again before it says that there is none."""
        live = [seen for seen in self.inventory.backends_of(model) if seen.is_live]
        if not live:
            await self.inventory.refresh(max_age_s=INVENTORY_AGE_S)
            live = [seen for seen in self.inventory.backends_of(model) if seen.is_live]
        return tuple(live)

    async def _admit(
        self, ask: Ask, identity: Identity, route: routes.Route, *, backends: tuple[Seen, ...], gone: Gone
    ) -> Grant | Refusal | None:
        admission = self._admission(ask, identity, route, backends[0], self.now())

        async def attempt() -> Admitted | Refused | Unfit:
            return await self.limiter.admit(admission)

        decision = await self.queue.decide(identity.key, attempt, gone)
        if isinstance(decision, Unfit) and decision.reason == "calendar":  # this clock is off, Redis's counts
            admission = self._admission(ask, identity, route, backends[0], decision.now)
            decision = await self.queue.decide(identity.key, attempt, gone)
        if isinstance(decision, Admitted):
            return grants.grant(ask, identity, admission, decision, backends=backends, now=self.now())
        if isinstance(decision, Refused):
            calendar = windows.at(self.now(), identity.timezone)
            retry_s = self.queue.retry_s(identity.key) if may_pass(decision) else 0
            return ceilings.refuse(decision, identity, calendar=calendar, retry_s=retry_s)
        if decision is None:
            return Refusal("client_gone", identity)
        if decision.reason == "stale":
            return None
        if decision.reason == "lost":
            self.rebuilder.notice(identity.tenant)
            return Refusal("rebuilding", identity)
        return Refusal("ask_late" if decision.reason == "late" else "request_closed", identity)

    def _admission(
        self, ask: Ask, identity: Identity, route: routes.Route, backend: Seen, now: datetime
    ) -> Admission:
        calendar = windows.at(now, identity.timezone)
        expected = terms.expect(
            ask,
            identity,
            settings=self.settings,
            context_length=backend.context_length(ask.model or "") or self.settings.context_length,
            template_tokens=self.templates.tokens_of(ask.model or ""),
            has_output=route.has_output,
        )
        return Admission(
            request_id=ask.id,
            tenant=identity.tenant,
            key=identity.key,
            tenant_version=identity.tenant_version,
            key_version=identity.key_version,
            tenant_limits=identity.tenant_limits,
            key_limits=identity.key_limits,
            windows=calendar.windows,
            valid_from=calendar.valid_from,
            valid_until=calendar.valid_until,
            bound_in=expected.bound_in,
            wanted=expected.wanted or 0,
            estimated_input=expected.estimated_input,
            estimated_output=expected.estimated_output,
            deadline_s=self.settings.deadline_s,
        )


async def _closed(decision: Awaitable[T]) -> T | Refusal:
    """The one place where a failure becomes an answer, and the answer is no."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await decision
    except LimiterUnavailable as error:
        log.warning("authz.limiter_unavailable", error=str(error))
        return Refusal("limiter_unavailable")
    except StoreUnavailable as error:
        log.warning("authz.store_unavailable", error=str(error))
        return Refusal("store_unavailable")
    except TimeoutError:
        log.warning("authz.decision_timed_out")
        return Refusal("overloaded")


def utc_now() -> datetime:
    """The clock on the wall."""
    return datetime.now(UTC)

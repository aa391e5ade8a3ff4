"""Which backend has which model, as the backends themselves say it every few seconds.

Each backend is polled by a task of its own: one that hangs delays neither a decision nor
the other backends. Bodies are kept as the bytes Ollama sent, so that the read routes repeat them exactly.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from attrs import define, evolve, field, frozen

from authz import supervise
from authz.backends import probe
from authz.backends.backend import Described
from authz.backends.probe import Unanswered
from authz.backends.shown import Shown
from authz.models import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx

    from authz.backends.backend import Backend

log = structlog.get_logger()

LOADED_S: Final = 0.4
"""How often a backend is asked what it has loaded: a load is known within half a second."""
LOOK_AGAIN_S: Final = 1.0
"""A model or backend that is not there is looked for again, but not more often than this."""


@frozen
class Model:
    """A model of a backend: its name as Ollama spells it, and Ollama's own JSON about it."""

    name: str
    raw: bytes
    modified_at: str = ""
    context_length: int = 0
    digest: str = ""


def _by_name(models: Sequence[Model]) -> dict[str, Model]:
    """Index models by any spelling of their names; of several the first."""
    return {canonical(model.name): model for model in reversed(models)}


@frozen
class Seen:
    """The last answers of a backend; `is_live` is whether it answered last time."""

    backend: Backend
    is_live: bool = False
    away_since_s: float | None = None
    """When it first did not answer, of the times since it answered last."""
    version: str = ""
    models: tuple[Model, ...] = ()
    loaded: tuple[Model, ...] = ()
    by_name: dict[str, Model] = field(init=False, repr=False, eq=False)
    loaded_by_name: dict[str, Model] = field(init=False, repr=False, eq=False)

    @by_name.default
    def _models_by_name(self) -> dict[str, Model]:
        return _by_name(self.models)

    @loaded_by_name.default
    def _loaded_by_name(self) -> dict[str, Model]:
        return _by_name(self.loaded)

    def context_tokens(self, model: str) -> int:
        """Return the most tokens a prompt can have: of the model as it is loaded, else as it is made.

        0 if this backend does not report it.
        """
        return self.running_tokens(model) or _context_length(self.by_name.get(canonical(model)))

    def running_tokens(self, model: str) -> int:
        """Return the context that a model is loaded with here; 0 if it is not, or this is not known."""
        return _context_length(self.loaded_by_name.get(canonical(model)))

    def has_loaded(self, model: str) -> bool:
        """Return whether a model was in memory when this backend was asked last."""
        return canonical(model) in self.loaded_by_name

    @property
    def described(self) -> Described:
        """Return what `status` shows of this backend."""
        models, loaded = (tuple(model.name for model in group) for group in (self.models, self.loaded))
        return Described(self.backend.name, self.is_live, self.version, models, loaded)

    def digest(self, model: str) -> str | None:
        """Return what a model of this name is here, if this backend reports it."""
        known = self.by_name.get(canonical(model))
        return known.digest or None if known else None


class _Models(msgspec.Struct):
    models: list[msgspec.Raw] | None = None


class _Details(msgspec.Struct):
    context_length: int = 0


class _Named(msgspec.Struct):
    name: str
    modified_at: str = ""
    digest: str = ""
    context_length: int = 0
    """Of a loaded model; the details have that of the model itself."""
    details: _Details = msgspec.field(default_factory=_Details)


class _Version(msgspec.Struct):
    version: str


class Inventory:
    """Polls every backend; answers from memory, in constant time."""

    def __init__(
        self, backends: Sequence[Backend], *, poll_s: float, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._poll_s = poll_s
        self._now_s = now_s
        self._pollers: dict[str, _Poller] = {}
        self._having: dict[str, tuple[Seen, ...]] = {}
        self.shown = Shown()
        self.backends: tuple[Backend, ...] = ()
        self.use(backends)

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Return the last answers of every backend, in the operator's order."""
        return tuple(poller.seen for poller in self._pollers.values())

    @property
    def is_live(self) -> bool:
        """Return whether any backend answers."""
        return any(poller.seen.is_live for poller in self._pollers.values())

    def away_s(self, seen: Seen) -> float:
        """Return for how long a backend has not answered; 0 if it does, or was not asked yet."""
        return 0.0 if seen.away_since_s is None else self._now_s() - seen.away_since_s

    def backends_of(self, model: str) -> tuple[Seen, ...]:
        """Return the backends that have a model: live ones first, then where it is loaded."""
        return self._having.get(canonical(model), ())

    def serving(self, model: str) -> tuple[Seen, ...]:
        """Return the live backends of a model; where there is none, they are asked again soon.

        All have the very model of the first, since any of them may answer.
        """
        live = tuple(seen for seen in self.backends_of(model) if seen.is_live)
        if not live:
            self.look_again()
        if len(live) <= 1:
            return live
        return tuple(seen for seen in live if seen.digest(model) == live[0].digest(model))

    def use(self, backends: Sequence[Backend]) -> None:
        """Poll exactly these from now on; what is known of one stays while its URL does."""
        before, self._pollers = self._pollers, {}
        known = {poller.seen.backend.url: poller.seen for poller in before.values()}
        for backend in backends:
            old = before.get(backend.name)
            if old is not None and old.seen.backend == backend:
                self._pollers[backend.name] = before.pop(backend.name)
                continue
            seen = evolve(known.get(backend.url, Seen(backend)), backend=backend)
            self._pollers[backend.name] = _Poller(seen, self._index, self._poll_s, self._now_s)
        for old in before.values():
            old.task.cancel()
        self.backends = tuple(backends)
        self._index()

    def look_again(self) -> None:
        """Ask every backend soon, without waiting for it."""
        for poller in self._pollers.values():
            poller.look_again()

    async def looked(self, *, within_s: float) -> None:
        """Wait until every backend was asked once, but not for one that hangs."""
        waits = [asyncio.create_task(poller.looked.wait()) for poller in self._pollers.values()]
        if waits:
            _, late = await asyncio.wait(waits, timeout=within_s)
            for wait in late:
                wait.cancel()

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            for poller in self._pollers.values():
                poller.task.cancel()
            await asyncio.gather(*(poller.task for poller in self._pollers.values()), return_exceptions=True)

    def _index(self) -> None:
        """Sort the backends of every model anew, after one of them has changed."""
        having: dict[str, list[Seen]] = {}
        for seen in self.seen:
            for name in seen.by_name:
                having.setdefault(name, []).append(seen)
        self._having = {name: _sorted(name, found) for name, found in having.items()}


@define(eq=False)
class _Poller:
    """Asks one backend, again and again."""

    seen: Seen
    _changed: Callable[[], None]
    _poll_s: float
    _now_s: Callable[[], float]
    looked: asyncio.Event = field(init=False, factory=asyncio.Event)
    _woken: asyncio.Event = field(init=False, factory=asyncio.Event)
    _looked_at_s: float = field(init=False, default=float("-inf"))
    task: asyncio.Task[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.task = asyncio.create_task(supervise.continually("backend", self._run))

    def look_again(self) -> None:
        """Ask soon, unless that was done just now."""
        if self._now_s() - self._looked_at_s >= LOOK_AGAIN_S:
            self._woken.set()

    async def _run(self) -> None:
        async with probe.client(self.seen.backend) as client:
            while True:
                self._woken.clear()
                await self._look(client, is_whole=True)
                self._looked_at_s = self._now_s()
                self.looked.set()
                while (left_s := self._looked_at_s + self._poll_s - self._now_s()) > 0:
                    if await self._woken_within(min(left_s, LOADED_S)):
                        break
                    if self.seen.is_live:
                        await self._look(client, is_whole=False)

    async def _woken_within(self, wait_s: float) -> bool:
        try:
            async with asyncio.timeout(wait_s):
                return await self._woken.wait()
        except TimeoutError:
            return False

    async def _look(self, client: httpx.AsyncClient, *, is_whole: bool) -> None:
        """Ask; what a backend answered before stays valid while it does not answer."""
        try:
            loaded = _models(await probe.fetch(client, "/api/ps"))
            found = evolve(self.seen, is_live=True, away_since_s=None, loaded=loaded)
            if is_whole:
                version = msgspec.json.decode(
                    await probe.fetch(client, "/api/version"), type=_Version
                ).version
                found = evolve(found, version=version, models=_models(await probe.fetch(client, "/api/tags")))
        except (Unanswered, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.debug("authz.backend_unanswered", backend=self.seen.backend.name, error=str(error))
            since_s = self._now_s() if self.seen.away_since_s is None else self.seen.away_since_s
            found = evolve(self.seen, is_live=False, away_since_s=since_s)
        if found == self.seen:
            return
        if found.is_live != self.seen.is_live:
            log.info("authz.backend_changed", backend=found.backend.name, is_live=found.is_live)
        self.seen = found
        self._changed()


def _sorted(name: str, found: list[Seen]) -> tuple[Seen, ...]:
    return tuple(sorted(found, key=lambda seen: (not seen.is_live, name not in seen.loaded_by_name)))


def _models(body: bytes) -> tuple[Model, ...]:
    raws = msgspec.json.decode(body, type=_Models).models or []
    named = [(msgspec.json.decode(raw, type=_Named), bytes(raw)) for raw in raws]
    return tuple(
        Model(it.name, raw, it.modified_at, it.context_length or it.details.context_length, it.digest)
        for it, raw in named
    )


def _context_length(model: Model | None) -> int:
    return model.context_length if model else 0

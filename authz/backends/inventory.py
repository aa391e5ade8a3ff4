"""Which backend has which model, as the backends themselves say it every few seconds.

Bodies are kept as the bytes Ollama sent, so that the read routes repeat them to the letter.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx
import msgspec
import structlog
from attrs import evolve, frozen

from authz.models import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from authz.backends.backend import Backend

log = structlog.get_logger()

PROBE_TIMEOUT_S = 3.0


@frozen
class Model:
    """A model of a backend: its name as Ollama spells it, and Ollama's own JSON about it."""

    name: str
    raw: bytes
    modified_at: str = ""
    context_length: int = 0
    digest: str = ""


@frozen
class Seen:
    """The last answers of a backend; `is_live` is whether it answered last time."""

    backend: Backend
    is_live: bool = False
    version: str = ""
    models: tuple[Model, ...] = ()
    loaded: tuple[Model, ...] = ()

    def has(self, name: str) -> bool:
        """Return whether this backend has a model of this canonical name."""
        return any(canonical(model.name) == name for model in self.models)

    def context_tokens(self, model: str) -> int:
        """Return the most tokens a prompt can have: of the model as it is loaded, else as it is made.

        0 if this backend does not report it.
        """
        found = (_named(model, self.loaded), _named(model, self.models))
        return next((known.context_length for known in found if known and known.context_length), 0)

    def has_loaded(self, model: str) -> bool:
        """Return whether a model was in memory when this backend was asked last."""
        return _named(model, self.loaded) is not None

    def digest(self, model: str) -> str | None:
        """Return what a model of this name is here, if this backend reports it."""
        known = _named(model, self.models)
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
    """Polls every backend; answers from memory."""

    def __init__(
        self,
        backends: Sequence[Backend],
        client: httpx.AsyncClient,
        *,
        poll_s: float,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seen = {backend.name: Seen(backend) for backend in backends}
        self._client = client
        self._poll_s = poll_s
        self._now_s = now_s
        self._asked_at_s = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Return the last answers of every backend, in the operator's order."""
        return tuple(self._seen.values())

    @property
    def is_live(self) -> bool:
        """Return whether any backend answers."""
        return any(seen.is_live for seen in self.seen)

    def backends_of(self, model: str) -> tuple[Seen, ...]:
        """Return the backends that have a model: those that answered last time first."""
        name = canonical(model)
        having = [seen for seen in self.seen if seen.has(name)]
        return tuple(sorted(having, key=lambda seen: not seen.is_live))

    async def refresh(self, *, max_age_s: float = 0) -> None:
        """Ask every backend unless that was done within `max_age_s`; callers share a round that runs."""
        if self._refreshing is None or self._refreshing.done():
            if self._now_s() - self._asked_at_s < max_age_s:
                return
            self._refreshing = asyncio.create_task(self._ask_all())
        await asyncio.shield(self._refreshing)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_s)

    async def _ask_all(self) -> None:
        for seen in await asyncio.gather(*map(self._ask, self.seen)):
            before = self._seen[seen.backend.name]
            if before.is_live != seen.is_live:
                log.info("authz.backend_changed", backend=seen.backend.name, is_live=seen.is_live)
            self._seen[seen.backend.name] = seen
        self._asked_at_s = self._now_s()

    async def _ask(self, seen: Seen) -> Seen:
        """Ask one backend; what it said before stays valid while it does not answer."""
        try:
            version, tags, loaded = [
                await self._get(seen.backend, path) for path in ("/api/version", "/api/tags", "/api/ps")
            ]
            return Seen(
                backend=seen.backend,
                is_live=True,
                version=msgspec.json.decode(version, type=_Version).version,
                models=_models(tags),
                loaded=_models(loaded),
            )
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
            log.debug("authz.backend_unanswered", backend=seen.backend.name, error=type(error).__name__)
            return evolve(seen, is_live=False)

    async def _get(self, backend: Backend, path: str) -> bytes:
        answer = await self._client.get(
            backend.url + path, headers=backend.credentials(), timeout=PROBE_TIMEOUT_S
        )
        return answer.raise_for_status().content

    async def show(self, seen: Seen, model: str) -> bytes | None:
        """Ollama's own description of a model; None if the backend does not answer."""
        try:
            answer = await self._client.post(
                f"{seen.backend.url}/api/show",
                json={"model": model},
                headers=seen.backend.credentials(),
                timeout=PROBE_TIMEOUT_S,
            )
            return answer.raise_for_status().content
        except httpx.HTTPError:
            return None


def _models(body: bytes) -> tuple[Model, ...]:
    raws = msgspec.json.decode(body, type=_Models).models or []
    named = [(msgspec.json.decode(raw, type=_Named), bytes(raw)) for raw in raws]
    return tuple(
        Model(
            entry.name,
            raw,
            entry.modified_at,
            entry.context_length or entry.details.context_length,
            entry.digest,
        )
        for entry, raw in named
    )


def _named(name: str, models: Iterable[Model]) -> Model | None:
    """Find a model by any spelling of its name."""
    wanted = canonical(name)
    return next((model for model in models if canonical(model.name) == wanted), None)

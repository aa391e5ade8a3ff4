"""Answer the read routes from the inventory: the union over all backends, what the key may use.

Nothing here reaches a backend, but for `/api/show` of a description that is not known yet.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
from attrs import evolve, frozen

from authz.backends import shown
from authz.decision import limit_refusals, own_use
from authz.decision.refusals import Answer, Reason, Refusal
from authz.models import canonical, is_allowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from authz.backends.inventory import Inventory, Model
    from authz.decision.aliases import Aliases
    from authz.decision.forecasts import Forecasts
    from authz.decision.own_use import OwnUse
    from authz.limiter.limiter import Limiter
    from authz.messages import Ask
    from authz.types import Identity

    Headers = Iterable[tuple[bytes, bytes]]

OLLAMA_JSON: Final = {"content-type": "application/json; charset=utf-8"}
OPENAI_JSON: Final = {"content-type": "application/json"}
_MODEL_PREFIX: Final = "/v1/models/"

FIXED: Final = {
    "/api/status": Answer(200, OLLAMA_JSON, b'{"cloud":{"disabled":true,"source":"env"}}'),
    "/api/experimental/model-recommendations": Answer(200, OLLAMA_JSON, b'{"recommendations":[]}'),
}
"""The answers of an Ollama that has no cloud; what it would recommend could not be pulled."""

VERSIONED: Final = b"anthropic-version"
"""The request header of Anthropic's SDKs, whose models have another shape than OpenAI's."""

ESTIMATE: Final = "x-gateway-estimate"
"""The response header that names the fields which are no exact counts."""


@frozen
class Read:
    """A read route's answer, and the identity that asked for it."""

    identity: Identity
    answer: Answer


@frozen
class Reads:
    """The answers to the read routes, and what they are made of."""

    inventory: Inventory
    limiter: Limiter
    aliases: Aliases
    forecasts: Forecasts
    own: OwnUse

    async def answer(self, identity: Identity, ask: Ask, headers: Headers, now: datetime) -> Answer | Refusal:
        """Answer a read route, for a verified key and an allowed method.

        Raises LimiterUnavailable and StoreUnavailable.
        """
        if wait_us := await self.limiter.read(identity.tenant, identity.key):
            return limit_refusals.reads_used_up(identity, wait_us)
        if ask.path in FIXED:
            return FIXED[ask.path]
        if ask.path in own_use.PATHS:
            return await self.own.answer(identity, ask.path, now)
        if not self.inventory.is_live:
            return Refusal(Reason.BACKEND_UNAVAILABLE, identity)
        return await self._answer(identity, ask, is_anthropic=any(name == VERSIONED for name, _ in headers))

    async def _answer(self, identity: Identity, ask: Ask, *, is_anthropic: bool) -> Answer | Refusal:
        answer: Answer | Refusal
        match ask.path:
            case "/api/version":
                version = next(seen.version for seen in self.inventory.seen if seen.is_live)
                answer = Answer(200, OLLAMA_JSON, msgspec.json.encode({"version": version}))
            case "/api/show":
                answer = await self._show(identity, self._meant(identity, ask.model))
            case "/api/tags" | "/api/ps":
                raw = [model.raw for model in self._models(identity, is_loaded=ask.path == "/api/ps")]
                answer = Answer(200, OLLAMA_JSON, b'{"models":[' + b",".join(raw) + b"]}")
            case "/v1/messages/count_tokens":
                answer = self._count_tokens(identity, ask)
            case "/v1/models":
                listed = _listed(self._models(identity, is_loaded=False), is_anthropic=is_anthropic)
                answer = Answer(200, OPENAI_JSON, msgspec.json.encode(listed))
            case _:
                name = ask.path.removeprefix(_MODEL_PREFIX)
                answer = self._one(identity, name, is_anthropic=is_anthropic)
        return answer

    def _meant(self, identity: Identity, name: str | None) -> str | None:
        return self.aliases.meant(identity.tenant, name, self.inventory) or name

    def _models(self, identity: Identity, *, is_loaded: bool) -> tuple[Model, ...]:
        live = [seen for seen in self.inventory.seen if seen.is_live]
        if is_loaded:
            return _union(identity, (seen.loaded for seen in live))
        models = _union(identity, (seen.models for seen in live))
        return _with_aliases(models, self.aliases.names(identity.tenant))

    def _one(self, identity: Identity, name: str, *, is_anthropic: bool) -> Answer | Refusal:
        """Describe one model; one that the key may not use is not there."""
        meant = self._meant(identity, name) or name
        having = [seen for seen in self.inventory.backends_of(meant) if seen.is_live]
        if not having or not is_allowed(meant, identity.models):
            return Refusal(Reason.MODEL_UNKNOWN, identity, words={"model": name})
        entry = _entry(having[0].by_name[canonical(meant)], name, is_anthropic=is_anthropic)
        return Answer(200, OPENAI_JSON, msgspec.json.encode(entry))

    async def _show(self, identity: Identity, model: str | None) -> Answer | Refusal:
        if refusal := _unusable(identity, model):
            return refusal
        for seen in self.inventory.backends_of(model or ""):
            body = await self.inventory.shown.of(seen.backend, model or "", digest=seen.digest(model or ""))
            if body is not None and not identity.policy.details:
                body = shown.facts(body)
            if body is not None:
                return Answer(200, OLLAMA_JSON, body)
        return Refusal(Reason.MODEL_UNKNOWN, identity, words={"model": model or ""})

    def _count_tokens(self, identity: Identity, ask: Ask) -> Answer | Refusal:
        """Estimate a prompt's tokens by what the tenant's prompts had; images are not counted.

        Coding agents plan by it: when to sum up a conversation, say. The bound holds here too.
        """
        model = self._meant(identity, ask.model)
        if refusal := _unusable(identity, model):
            return refusal
        having = self.inventory.backends_of(model or "")
        if not having:
            return Refusal(Reason.MODEL_UNKNOWN, identity, words={"model": ask.model or ""})
        known = self.forecasts
        forecast = known.of.get((identity.tenant, canonical(model or "")), known.usual)
        bounds = ask.bounds or {}
        bound = bounds.get(having[0].digest(model or "") or "", bounds.get("bytes", ask.prompt_bytes))
        tokens = max(1, min(math.ceil(ask.prompt_bytes / forecast.bytes_per_token), bound))
        body = msgspec.json.encode({"input_tokens": tokens})
        return Answer(200, OPENAI_JSON | {ESTIMATE: "input_tokens"}, body)


def _unusable(identity: Identity, model: str | None) -> Refusal | None:
    if not model:
        return Refusal(Reason.MODEL_MISSING, identity)
    return None if is_allowed(model, identity.models) else Refusal(Reason.MODEL_NOT_ALLOWED, identity)


def _union(identity: Identity, groups: Iterable[Iterable[Model]]) -> tuple[Model, ...]:
    """Return every allowed model once, as the first backend that has it describes it."""
    found: dict[str, Model] = {}
    for group in groups:
        for model in group:
            if is_allowed(model.name, identity.models):
                found.setdefault(canonical(model.name), model)
    return tuple(found.values())


def _with_aliases(models: tuple[Model, ...], names: Mapping[str, str]) -> tuple[Model, ...]:
    """Return models, and each that has a name of its own besides once more under that."""
    known = {canonical(model.name): model for model in models}
    meant = {name: known[canonical(model)] for name, model in names.items() if canonical(model) in known}
    taken = {canonical(name) for name in meant}
    others = tuple(model for model in models if canonical(model.name) not in taken)
    return (*others, *(_renamed(model, name) for name, model in meant.items()))


def _renamed(model: Model, name: str) -> Model:
    fields = msgspec.json.decode(model.raw, type=dict[str, msgspec.Raw])
    called = msgspec.Raw(msgspec.json.encode(name))
    raw = msgspec.json.encode(fields | {key: called for key in ("name", "model") if key in fields})
    return evolve(model, name=name, raw=raw)


def _listed(models: Iterable[Model], *, is_anthropic: bool) -> dict[str, object]:
    entries = [_entry(model, model.name, is_anthropic=is_anthropic) for model in models]
    if not is_anthropic:
        return {"object": "list", "data": entries}
    ends = (entries[0]["id"], entries[-1]["id"]) if entries else (None, None)
    return {"data": entries, "has_more": False, "first_id": ends[0], "last_id": ends[1]}


def _entry(model: Model, id_: str, *, is_anthropic: bool) -> dict[str, str | int]:
    modified = (
        datetime.fromisoformat(model.modified_at) if model.modified_at else datetime.fromtimestamp(0, UTC)
    )
    if is_anthropic:
        at = f"{modified.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        return {"type": "model", "id": id_, "display_name": id_, "created_at": at}
    return {"id": id_, "object": "model", "created": int(modified.timestamp()), "owned_by": "library"}

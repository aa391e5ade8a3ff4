"""Answer the read routes from the inventory: the union over all backends, what the key may use."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from authz.backends import shown
from authz.decision import limit_refusals
from authz.decision.refusals import Answer, Reason, Refusal
from authz.models import canonical, is_allowed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authz.backends.inventory import Inventory, Model
    from authz.limiter.limiter import Limiter
    from authz.messages import Ask
    from authz.types import Identity

OLLAMA_JSON = {"content-type": "application/json; charset=utf-8"}
OPENAI_JSON = {"content-type": "application/json"}
_MODEL_PREFIX = "/v1/models/"


async def answer(inventory: Inventory, limiter: Limiter, identity: Identity, ask: Ask) -> Answer | Refusal:
    """Answer a read route; the key has been verified, the method is allowed. Raises LimiterUnavailable."""
    if wait_us := await limiter.read(identity.tenant, identity.key):
        return limit_refusals.reads_used_up(identity, wait_us)
    return await _answer(inventory, identity, ask.path, ask.model)


async def _answer(inventory: Inventory, identity: Identity, path: str, model: str | None) -> Answer | Refusal:
    if not inventory.is_live:
        return Refusal(Reason.BACKEND_UNAVAILABLE, identity)
    if path == "/api/version":
        version = next(seen.version for seen in inventory.seen if seen.is_live)
        return Answer(200, OLLAMA_JSON, msgspec.json.encode({"version": version}))
    if path == "/api/show":
        return await _show(inventory, identity, model)
    loaded = path == "/api/ps"
    if path.startswith(_MODEL_PREFIX):
        return _one(inventory, identity, path.removeprefix(_MODEL_PREFIX))
    models = _union(
        identity, (seen.loaded if loaded else seen.models for seen in inventory.seen if seen.is_live)
    )
    if path in {"/api/tags", "/api/ps"}:
        return Answer(200, OLLAMA_JSON, b'{"models":[' + b",".join(model.raw for model in models) + b"]}")
    entries = [_entry(model, model.name) for model in models]
    return Answer(200, OPENAI_JSON, msgspec.json.encode({"object": "list", "data": entries}))


def _union(identity: Identity, groups: Iterable[Iterable[Model]]) -> tuple[Model, ...]:
    """Return every allowed model once, as the first backend that has it describes it."""
    found: dict[str, Model] = {}
    for group in groups:
        for model in group:
            if is_allowed(model.name, identity.models):
                found.setdefault(canonical(model.name), model)
    return tuple(found.values())


def _one(inventory: Inventory, identity: Identity, name: str) -> Answer | Refusal:
    """Describe one model; a key learns as little of one that it may not use as of one that is not there."""
    having = [seen for seen in inventory.backends_of(name) if seen.is_live]
    if not having or not is_allowed(name, identity.models):
        return Refusal(Reason.MODEL_UNKNOWN, identity, words={"model": name})
    model = having[0].by_name[canonical(name)]
    return Answer(200, OPENAI_JSON, msgspec.json.encode(_entry(model, name)))


def _entry(model: Model, id_: str) -> dict[str, str | int]:
    created = int(datetime.fromisoformat(model.modified_at).timestamp()) if model.modified_at else 0
    return {"id": id_, "object": "model", "created": created, "owned_by": "library"}


async def _show(inventory: Inventory, identity: Identity, model: str | None) -> Answer | Refusal:
    if not model:
        return Refusal(Reason.MODEL_MISSING, identity)
    if not is_allowed(model, identity.models):
        return Refusal(Reason.MODEL_NOT_ALLOWED, identity)
    for seen in inventory.backends_of(model):
        body = await inventory.shown.of(seen.backend, model, digest=seen.digest(model))
        if body is not None and not identity.policy.details:
            body = shown.facts(body)
        if body is not None:
            return Answer(200, OLLAMA_JSON, body)
    return Refusal(Reason.MODEL_UNKNOWN, identity, words={"model": model})

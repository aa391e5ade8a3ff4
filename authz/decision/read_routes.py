"""Answer the read routes from the inventory: the union over all backends, what the key may use."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from authz.decision.refusals import Answer, Reason, Refusal
from authz.models import canonical, is_allowed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authz.backends.inventory import Inventory, Model
    from authz.types import Identity

OLLAMA_JSON = {"content-type": "application/json; charset=utf-8"}
OPENAI_JSON = {"content-type": "application/json"}


async def answer(inventory: Inventory, identity: Identity, path: str, model: str | None) -> Answer | Refusal:
    """Answer a read route; the key has been verified, the method is allowed."""
    if not inventory.is_live:
        return Refusal(Reason.BACKEND_UNAVAILABLE, identity)
    if path == "/api/version":
        version = next(seen.version for seen in inventory.seen if seen.is_live)
        return Answer(200, OLLAMA_JSON, msgspec.json.encode({"version": version}))
    if path == "/api/show":
        return await _show(inventory, identity, model)
    loaded = path == "/api/ps"
    models = _union(
        identity, (seen.loaded if loaded else seen.models for seen in inventory.seen if seen.is_live)
    )
    if path in {"/api/tags", "/api/ps"}:
        return Answer(200, OLLAMA_JSON, b'{"models":[' + b",".join(model.raw for model in models) + b"]}")
    if path == "/v1/models":
        entries = [_entry(model, model.name) for model in models]
        return Answer(200, OPENAI_JSON, msgspec.json.encode({"object": "list", "data": entries}))
    return _one(models, path.removeprefix("/v1/models/"), identity)


def _union(identity: Identity, groups: Iterable[Iterable[Model]]) -> tuple[Model, ...]:
    """Return every allowed model once, as the first backend that has it describes it."""
    found: dict[str, Model] = {}
    for group in groups:
        for model in group:
            if is_allowed(model.name, identity.models):
                found.setdefault(canonical(model.name), model)
    return tuple(found.values())


def _one(models: Iterable[Model], name: str, identity: Identity) -> Answer | Refusal:
    wanted = canonical(name)
    for model in models:
        if canonical(model.name) == wanted:
            return Answer(200, OPENAI_JSON, msgspec.json.encode(_entry(model, name)))
    return Refusal(Reason.MODEL_UNKNOWN, identity, words={"model": name})


def _entry(model: Model, id_: str) -> dict[str, str | int]:
    created = int(datetime.fromisoformat(model.modified_at).timestamp()) if model.modified_at else 0
    return {"id": id_, "object": "model", "created": created, "owned_by": "library"}


async def _show(inventory: Inventory, identity: Identity, model: str | None) -> Answer | Refusal:
    if not model:
        return Refusal(Reason.MODEL_MISSING, identity)
    if not is_allowed(model, identity.models):
        return Refusal(Reason.MODEL_NOT_ALLOWED, identity)
    for seen in inventory.backends_of(model):
        body = await inventory.show(seen, model)
        if body is not None:
            return Answer(200, OLLAMA_JSON, body)
    return Refusal(Reason.MODEL_UNKNOWN, identity, words={"model": model})

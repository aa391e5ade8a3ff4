"""Answer the read routes from the inventory: the union over all backends, what the key may use."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from attrs import evolve

from authz.backends import shown
from authz.decision import limit_refusals
from authz.decision.refusals import Answer, Reason, Refusal
from authz.models import canonical, is_allowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from authz.backends.inventory import Inventory, Model
    from authz.decision.aliases import Aliases
    from authz.limiter.limiter import Limiter
    from authz.messages import Ask
    from authz.types import Identity

OLLAMA_JSON = {"content-type": "application/json; charset=utf-8"}
OPENAI_JSON = {"content-type": "application/json"}
_MODEL_PREFIX = "/v1/models/"


async def answer(
    inventory: Inventory, limiter: Limiter, aliases: Aliases, identity: Identity, ask: Ask
) -> Answer | Refusal:
    """Answer a read route; the key has been verified, the method is allowed. Raises LimiterUnavailable."""
    if wait_us := await limiter.read(identity.tenant, identity.key):
        return limit_refusals.reads_used_up(identity, wait_us)
    return await _answer(inventory, aliases, identity, ask.path, ask.model)


async def _answer(
    inventory: Inventory, aliases: Aliases, identity: Identity, path: str, model: str | None
) -> Answer | Refusal:
    if not inventory.is_live:
        return Refusal(Reason.BACKEND_UNAVAILABLE, identity)
    if path == "/api/version":
        version = next(seen.version for seen in inventory.seen if seen.is_live)
        return Answer(200, OLLAMA_JSON, msgspec.json.encode({"version": version}))
    if path == "/api/show":
        meant = aliases.meant(identity.tenant, model, inventory)
        return await _show(inventory, identity, meant or model)
    loaded = path == "/api/ps"
    if path.startswith(_MODEL_PREFIX):
        name = path.removeprefix(_MODEL_PREFIX)
        return _one(inventory, identity, name, aliases.meant(identity.tenant, name, inventory) or name)
    models = _union(
        identity, (seen.loaded if loaded else seen.models for seen in inventory.seen if seen.is_live)
    )
    if not loaded:
        models = _with_aliases(models, aliases.names(identity.tenant))
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


def _one(inventory: Inventory, identity: Identity, name: str, meant: str) -> Answer | Refusal:
    """Describe one model; a key learns as little of one that it may not use as of one that is not there."""
    having = [seen for seen in inventory.backends_of(meant) if seen.is_live]
    if not having or not is_allowed(meant, identity.models):
        return Refusal(Reason.MODEL_UNKNOWN, identity, words={"model": name})
    model = having[0].by_name[canonical(meant)]
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

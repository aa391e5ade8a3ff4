"""Check whether a request may be considered at all: pure rules, each a Refusal or nothing, in order."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from authz import models
from authz.decision import routes
from authz.decision.refusals import NEVER_RETRY, Reason, Refusal
from authz.messages import Asked
from authz.types import Dialect

if TYPE_CHECKING:
    from datetime import datetime

    from authz.backends.inventory import Inventory
    from authz.messages import Ask
    from authz.types import Identity

ASK_AGE_S: Final = 1.8
"""An older Ask has no reader left: the tap takes no Grant 2 s after it, and Caddy gives up then."""

CLOCK_SKEW_S: Final = 5.0
"""How far an Ask may be ahead of our clock: further off, it could sit in a window that is not its own."""

RESTARTED_WITHIN_S: Final = 20.0
"""A backend that is restarted answers sooner; a longer absence is shown, and not retried in silence."""

PROBLEMS: Final = {
    "credential": Reason.CREDENTIAL_CONFLICT,
    "not_json": Reason.BODY_NOT_JSON,
    "duplicate_field": Reason.BODY_DUPLICATE_FIELD,
    "field": Reason.BODY_FIELD,
    "kind": Reason.BODY_KIND,
    "too_large": Reason.BODY_TOO_LARGE,
    "too_deep": Reason.BODY_TOO_DEEP,
    "encoding": Reason.BODY_ENCODING,
}

COUNTED: Final = {
    "images": ("images", "images", {}),
    "stop": ("stop strings", "stop", {Dialect.OLLAMA: "options.stop", Dialect.ANTHROPIC: "stop_sequences"}),
    "inputs": ("texts", "input", {}),
    "schema_bytes": (
        "bytes of schema",
        "format",
        {Dialect.OPENAI: "response_format", Dialect.ANTHROPIC: "output_config"},
    ),
    "logprobs": ("alternatives", "logprobs", {}),
}
"""What a policy counts in a body: how a refusal calls it, and its field, by dialect if they differ."""

NOTHING_ASKED: Final = Asked()

MUTATION: Final = "Models and accounts can't be changed"
MUTATIONS: Final = {"/api/pull": "There is no such model for this key, and none can be pulled"}
"""What is refused of a path; `ollama run` pulls whatever model `/api/show` does not find."""

THAT_PATH: Final = "that path"
NOT_SERVED: Final = {
    "/v1/audio/transcriptions": "transcriptions, since Ollama does not report what tokens they cost"
}
"""What is said of a path that is not served, though Ollama has it."""

KEY_STATES: Final = {"disabled": Reason.KEY_DISABLED, "revoked": Reason.KEY_REVOKED}
"""Reasons to refuse a key by its state; `active` is none."""


def route_of(ask: Ask, now: datetime) -> routes.Route | Refusal:
    """Find the route of a request. Refuses by its age, its target, its path, then its method."""
    if not -CLOCK_SKEW_S <= now.timestamp() - ask.minted_at_s <= ASK_AGE_S:
        return Refusal(Reason.ASK_LATE)
    if ask.problem == "target":
        return Refusal(Reason.TARGET_INVALID)
    route = routes.EXACT.get(ask.path) or routes.find(ask.path)
    if isinstance(route, routes.Unknown):
        if not route.is_mutation:
            return Refusal(Reason.PATH_UNKNOWN, words={"path": NOT_SERVED.get(ask.path, THAT_PATH)})
        return Refusal(Reason.PATH_MUTATION, words={"mutation": MUTATIONS.get(ask.path, MUTATION)})
    if ask.method not in route.methods:
        return Refusal(Reason.METHOD_NOT_ALLOWED, headers={"allow": ", ".join(route.methods)})
    return route


def unusable(ask: Ask, identity: Identity, now: datetime) -> Refusal | None:
    """Refuse a key that may not be used right now, or not in a path, though its secret is right."""
    if identity.tenant_state != "active":
        return Refusal(Reason.TENANT_DISABLED, identity)
    if identity.key_state != "active":
        return Refusal(KEY_STATES[identity.key_state], identity)
    ends = [end for end in (identity.expires_at, identity.secret_expires_at) if end is not None]
    if any(end <= now for end in ends):
        return Refusal(Reason.KEY_EXPIRED, identity)
    return Refusal(Reason.KEY_IN_PATH, identity) if ask.in_path and not identity.policy.in_path else None


def body_problem(ask: Ask, identity: Identity) -> Refusal | None:
    """Refuse a body in which the guard has found something wrong, or more of a kind than the key may send."""
    if ask.problem is None:
        return _too_much(ask, identity)
    return Refusal(PROBLEMS[ask.problem], identity, words={"field": ask.field or ""})


def _too_much(ask: Ask, identity: Identity) -> Refusal | None:
    """Refuse what costs a machine more than it looks: a backend works on it before it counts a token."""
    policy, asked = identity.policy, ask.asked
    if policy.images is not None and ask.images > policy.images:
        return _more_than_allowed(ask, identity, "images")
    if asked is None or asked == NOTHING_ASKED:
        return None
    for name, count, most in (
        ("stop", asked.stop, policy.stop),
        ("inputs", asked.inputs, policy.inputs),
        ("schema_bytes", asked.schema_bytes, policy.schema_bytes),
        ("logprobs", asked.logprobs, policy.logprobs),
    ):
        if count is not None and most is not None and count > most:
            return _more_than_allowed(ask, identity, name)
    return None


def _more_than_allowed(ask: Ask, identity: Identity, name: str) -> Refusal:
    what, field, fields = COUNTED[name]
    route = routes.EXACT.get(ask.path) or routes.find(ask.path)
    is_text = ask.path == "/v1/responses" and name == "schema_bytes"
    count = ask.images if name == "images" else getattr(ask.asked, name)
    words = {
        "what": what,
        "field": "text" if is_text else fields.get(route.dialect, field),
        "count": str(count),
        "limit": str(getattr(identity.policy, name)),
    }
    return Refusal(Reason.BODY_TOO_MUCH, identity, words=words)


def not_metered(route: routes.Route, identity: Identity) -> Refusal | None:
    """Refuse a route that is not metered: the others are answered elsewhere, or not at all."""
    if route.class_ is routes.Class.METERED:
        return None
    return Refusal(Reason.PATH_UNKNOWN, identity, words={"path": THAT_PATH})


def not_for_this_key(ask: Ask, identity: Identity) -> Refusal | None:
    """Refuse a model that the key may not use, or an address that it may not be used from."""
    if not ask.model:
        return Refusal(Reason.MODEL_MISSING, identity)
    if not models.is_allowed(ask.model, identity.models):
        return Refusal(Reason.MODEL_NOT_ALLOWED, identity)
    return wrong_address(ask, identity)


def without_backend(model: str, identity: Identity, inventory: Inventory) -> Refusal:
    """Refuse a model that no live backend has: no backend has it, or those are away, briefly or not."""
    words = {"model": model}
    away = inventory.backends_of(model) or (() if inventory.is_live else inventory.seen)
    if not away and inventory.is_live:
        return Refusal(Reason.MODEL_UNKNOWN, identity, words=words)
    is_lasting = bool(away) and min(map(inventory.away_s, away)) > RESTARTED_WITHIN_S
    return Refusal(Reason.BACKEND_UNAVAILABLE, identity, NEVER_RETRY if is_lasting else {}, words)


def wrong_address(ask: Ask, identity: Identity) -> Refusal | None:
    """Refuse a key that is bound to networks from elsewhere, and from an address that can't be parsed."""
    if identity.cidrs is None:
        return None
    try:
        address = ip_address(ask.ip.partition("%")[0])
    except ValueError:
        return Refusal(Reason.CIDR, identity)
    mapped = getattr(address, "ipv4_mapped", None) or address
    is_inside = any(mapped in ip_network(cidr) for cidr in identity.cidrs)
    return None if is_inside else Refusal(Reason.CIDR, identity)

"""Check whether a request may be considered at all: pure rules, each a Refusal or nothing, in order."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from authz import models
from authz.decision import routes
from authz.decision.refusals import Reason, Refusal

if TYPE_CHECKING:
    from datetime import datetime

    from authz.messages import Ask
    from authz.types import Identity

ASK_AGE_S: Final = 1.8
"""Nobody waits for an older Ask: the tap takes no Grant 2 s after it, and Caddy gives up then."""

CLOCK_SKEW_S: Final = 5.0
"""How far an Ask may be ahead of our clock: further off, it could sit in a window that is not its own."""

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

KEY_STATES: Final = {"disabled": Reason.KEY_DISABLED, "revoked": Reason.KEY_REVOKED}
"""Reasons to refuse a key by its state; `active` is none."""


def route_of(ask: Ask, now: datetime) -> routes.Route | Refusal:
    """Find the route of a request. Refuses by its age, its target, its path, then its method."""
    if not -CLOCK_SKEW_S <= (now - ask.minted_at).total_seconds() <= ASK_AGE_S:
        return Refusal(Reason.ASK_LATE)
    if ask.problem == "target":
        return Refusal(Reason.TARGET_INVALID)
    route = routes.EXACT.get(ask.path) or routes.find(ask.path)
    if isinstance(route, routes.Unknown):
        return Refusal(Reason.PATH_MUTATION if route.is_mutation else Reason.PATH_UNKNOWN)
    if ask.method not in route.methods:
        return Refusal(Reason.METHOD_NOT_ALLOWED, headers={"allow": ", ".join(route.methods)})
    return route


def unusable(identity: Identity, now: datetime) -> Refusal | None:
    """Refuse a key that may not be used right now, though its secret is right."""
    if identity.tenant_state != "active":
        return Refusal(Reason.TENANT_DISABLED, identity)
    if identity.key_state != "active":
        return Refusal(KEY_STATES[identity.key_state], identity)
    ends = [end for end in (identity.expires_at, identity.secret_expires_at) if end is not None]
    return Refusal(Reason.KEY_EXPIRED, identity) if any(end <= now for end in ends) else None


def body_problem(ask: Ask, identity: Identity) -> Refusal | None:
    """Refuse a body in which the guard has found something wrong."""
    if ask.problem is None:
        return None
    return Refusal(PROBLEMS[ask.problem], identity, words={"field": ask.field or ""})


def not_metered(route: routes.Route, identity: Identity) -> Refusal | None:
    """Refuse a route that is not metered: the others are answered elsewhere, or not at all."""
    return None if route.class_ is routes.Class.METERED else Refusal(Reason.PATH_UNKNOWN, identity)


def not_for_this_key(ask: Ask, identity: Identity) -> Refusal | None:
    """Refuse a model that the key may not use, or an address that it may not be used from."""
    if not ask.model:
        return Refusal(Reason.MODEL_MISSING, identity)
    if not models.is_allowed(ask.model, identity.models):
        return Refusal(Reason.MODEL_NOT_ALLOWED, identity)
    return wrong_address(ask, identity)


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

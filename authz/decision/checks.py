"""Whether a request may be considered at all: pure rules, each a Refusal or nothing, in order."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from authz import models
from authz.decision import routes
from authz.decision.refusals import Refusal

if TYPE_CHECKING:
    from datetime import datetime

    from authz.messages import Ask
    from authz.types import Identity

CLOCK_SKEW_S: Final = 5.0

PROBLEMS: Final = {
    "credential": "credential_conflict",
    "not_json": "body_not_json",
    "duplicate_field": "body_duplicate_field",
    "field": "body_field",
    "too_large": "body_too_large",
    "too_deep": "body_too_deep",
    "encoding": "body_encoding",
}


def route_of(ask: Ask, now: datetime) -> routes.Route | Refusal:
    """The route of a request: its age, its target, then its path, then its method.

    An id far off the clock could sit in a window that is not its own.
    """
    if abs((now - ask.minted_at).total_seconds()) > CLOCK_SKEW_S:
        return Refusal("ask_late")
    if ask.problem == "target":
        return Refusal("target_invalid")
    route = routes.find(ask.path)
    if isinstance(route, routes.Unknown):
        return Refusal("path_mutation" if route.is_mutation else "path_unknown")
    if ask.method not in route.methods:
        return Refusal("method_not_allowed", headers={"allow": ", ".join(route.methods)})
    return route


def unusable(identity: Identity, now: datetime) -> Refusal | None:
    """Why a key whose secret is right may not be used right now."""
    if identity.tenant_state != "active":
        return Refusal("tenant_disabled", identity)
    if identity.key_state != "active":
        return Refusal(f"key_{identity.key_state}", identity)
    ends = [end for end in (identity.expires_at, identity.secret_expires_at) if end is not None]
    return Refusal("key_expired", identity) if any(end <= now for end in ends) else None


def body_problem(ask: Ask, identity: Identity) -> Refusal | None:
    """What the guard found wrong with the body."""
    return None if ask.problem is None else Refusal(PROBLEMS[ask.problem], identity)


def not_metered(route: routes.Route, identity: Identity) -> Refusal | None:
    """Only metered routes get a Grant; the others are answered elsewhere, or nowhere."""
    return None if route.class_ is routes.Class.METERED else Refusal("path_unknown", identity)


def not_for_this_key(ask: Ask, identity: Identity) -> Refusal | None:
    """Whether the key may use the model it names, from where it comes."""
    if not ask.model:
        return Refusal("model_missing", identity)
    if not models.is_allowed(ask.model, identity.models):
        return Refusal("model_not_allowed", identity)
    return wrong_address(ask, identity)


def wrong_address(ask: Ask, identity: Identity) -> Refusal | None:
    """A key bound to networks is refused from elsewhere, and from an address that can't be read."""
    if identity.cidrs is None:
        return None
    try:
        address = ip_address(ask.ip.partition("%")[0])
    except ValueError:
        return Refusal("cidr", identity)
    mapped = getattr(address, "ipv4_mapped", None) or address
    is_inside = any(mapped in ip_network(cidr) for cidr in identity.cidrs)
    return None if is_inside else Refusal("cidr", identity)

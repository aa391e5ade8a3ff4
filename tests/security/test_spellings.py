"""G3: mutation routes have 0 upstream hits for any spelling, whatever the method, protocol and key."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.decision.routes import ROUTES, Class
from tests.gateway import Gateway
from tests.security import spellings, wire
from tests.security.spellings import METHODS, MUTATIONS, SPELLINGS
from tests.security.trials import Proxy

KNOWN = {route.path for route in ROUTES}
MODEL = re.compile(r"/v1/models/[A-Za-z0-9._:-]+(?:/[A-Za-z0-9._:-]+)*")
MANY = 150


def test_no_spelling_reaches_a_backend(proxy: Proxy) -> None:
    """G3: each mutation path in each spelling is refused, and costs nothing."""
    proxy.witness.forget()
    made = list(spellings.asked(spellings.sampled(), proxy))
    rows = proxy.witness.settled(reply.request_id for _, reply in made if reply.request_id)
    found = [fault for combination, reply in made for fault in spellings.faults(combination, reply, rows)]
    assert [] == found
    assert [] == proxy.witness.hits()


def test_the_sample_is_fair() -> None:
    """Each spelling is asked for by each method, over each protocol, and of each path."""
    made = set(spellings.sampled())
    assert len(SPELLINGS) * len(MUTATIONS) == len({each[:2] for each in made})
    assert len(SPELLINGS) * len(METHODS) == len({(each[0], each[2]) for each in made})
    assert len(SPELLINGS) * 4 == len({(each[0], each[3]) for each in made})


PIECES = (
    st.sampled_from("/\\.%;?#@:*\xff")
    | st.sampled_from(("//", "..", "%2e", "%2F", "%5C", "%25", "%00", "%20"))
    | st.sampled_from(("api", "API", "v1", "chat", "pull", "pu%6cl", "delete", "blobs", "models", "tags"))
)
TARGETS = st.lists(PIECES, min_size=1, max_size=9).map(lambda pieces: "/" + "".join(pieces))


@settings(
    max_examples=MANY,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(method=st.sampled_from(METHODS), target=TARGETS)
@pytest.mark.usefixtures("untouched")
def test_no_target_is_decoded(gateway: Gateway, method: str, target: str) -> None:
    """G3: whatever the bytes, only a path that is byte-equal to a known one is served."""
    head = f"{method} {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {gateway.key}\r\n\r\n"
    reply = wire.ask(gateway.url, head.encode("latin-1"))
    path = target.partition("?")[0]
    is_known = path in KNOWN or MODEL.fullmatch(path)
    assert is_known or reply.status in {307, 400, 403, 404}


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, each.path) for each in ROUTES if each.class_ is not Class.PUBLIC for method in each.methods],
)
@pytest.mark.usefixtures("untouched")
def test_every_route_wants_a_key(gateway: Gateway, method: str, path: str) -> None:
    """G1: without a key each route that is not public is 401."""
    target = path.replace("{id}", "demo")
    reply = wire.ask(gateway.url, f"{method} {target} HTTP/1.1\r\nHost: gateway\r\n\r\n".encode())
    assert 401 == reply.status

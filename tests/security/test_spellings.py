"""G3: mutation routes have 0 upstream hits for any spelling, whatever the method and the key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.decision.routes import ROUTES
from tests.gateway import Gateway
from tests.security import wire
from tests.security.observed import Witness
from tests.security.spellings import METHODS, MUTATIONS, SPELLINGS, UNPARSABLE
from tests.security.wire import Line, Reply

pytestmark = pytest.mark.usefixtures("untouched")

KNOWN = {route.path for route in ROUTES}
MODEL = re.compile(r"/v1/models/[A-Za-z0-9._:-]+(?:/[A-Za-z0-9._:-]+)*")
UNDER_A_MODEL = "under a model"
"""A model's name may have slashes, so this is the name of a model that there is not."""
_OF_A_NAME = {"model_unknown", "method_not_allowed"}
MANY = 400


@pytest.fixture
def open_line(gateway: Gateway) -> Iterator[Line]:
    """A connection that is refused again and again."""
    with wire.line(gateway.url) as opened:
        yield opened


def asked(line: Line, method: str, target: str, key: str) -> Reply:
    """Ask with a valid key and every header by which a proxy has been led elsewhere."""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
        "X-HTTP-Method-Override: POST\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /api/tags\r\n"
        "X-Original-URL: /api/tags\r\nX-Rewrite-URL: /api/tags\r\n\r\n"
    )
    return line.ask(head.encode("latin-1"))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_reaches_a_backend(
    gateway: Gateway, open_line: Line, witness: Witness, spelling: str
) -> None:
    """G3: each mutation path in this spelling is refused for every method, and costs nothing."""
    replies = [
        asked(open_line, method, SPELLINGS[spelling](path), gateway.key)
        for path, method in product(MUTATIONS, METHODS)
    ]
    is_name = spelling == UNDER_A_MODEL
    assert {reply.status for reply in replies} <= ({403, 404, 405} if is_name else {400, 403, 404})
    rows = witness.settled(reply.request_id for reply in replies)
    assert {("denied", 0)} == {(row.outcome, row.tokens) for row in rows.values()}
    reasons = {"target_invalid", "path_unknown", "path_mutation"}
    assert {row.reason for row in rows.values()} <= reasons | (_OF_A_NAME if is_name else set())


@pytest.mark.parametrize("name", UNPARSABLE)
def test_what_is_no_target_ends_the_connection(gateway: Gateway, name: str) -> None:
    """G3: bytes that are no HTTP are answered 4xx by the server itself, which then hangs up."""
    with wire.line(gateway.url) as opened:
        reply = asked(opened, "POST", UNPARSABLE[name], gateway.key)
        assert reply.status in {400, 431}
        assert reply.is_last
        assert opened.is_over()


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
def test_no_target_is_decoded(gateway: Gateway, method: str, target: str) -> None:
    """G3: whatever the bytes, only a path that is byte-equal to a known one is served."""
    with wire.line(gateway.url) as opened:
        reply = asked(opened, method, target, gateway.key)
    path = target.partition("?")[0]
    is_known = path in KNOWN or MODEL.fullmatch(path)
    assert is_known or reply.status in {307, 400, 403, 404}

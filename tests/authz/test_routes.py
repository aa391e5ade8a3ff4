"""Paths: known byte for byte, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.decision import routes
from authz.decision.routes import Class, Route, Unknown
from authz.types import Dialect


@pytest.mark.parametrize(
    "path",
    [
        "/api%2Fchat",
        "/api/ch%61t",
        "//api/chat",
        "/api//chat",
        "/api/./chat",
        "/api/x/../chat",
        "/api/chat/",
        "/API/chat",
        "/api/chat;x",
        "/api\\chat",
        "/api/chat ",
        "/v1/models/",
        "/v1/models/a/",
        "/v1/models//a",
        "/v1/models/a%2Fb",
        "/v1/models/{id}",
        "/v1/models/a\n",
        "/v1/models/" + "a" * 161,
        "",
        "*",
        "/debug/pprof/",
        "/metrics",
        "/verify",
    ],
)
def test_other_spellings_are_unknown(path: str) -> None:
    """G3: no spelling but the documented one is a route."""
    assert isinstance(routes.find(path), Unknown)


@pytest.mark.parametrize(
    "path",
    [
        "/api/pull",
        "/api/push",
        "/api/create",
        "/api/copy",
        "/api/delete",
        "/api/blobs/sha256:00",
        "/api/me",
        "/api/signout",
        "/api/user/keys/x",
        "/api/experimental/web_fetch",
        "/api/codex/x",
    ],
)
def test_mutations(path: str) -> None:
    """G3: what changes models or accounts is refused unlike what merely does not exist, and is no route."""
    assert Unknown(Dialect.OLLAMA, is_mutation=True) == routes.find(path)


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz/%.;\\0159-", max_size=40))
def test_default_deny(path: str) -> None:
    """G3: whatever is sent, only the table's own paths are routes."""
    known = {route.path for route in routes.ROUTES}
    assert isinstance(routes.find(path), Unknown) or path in known


@pytest.mark.parametrize("model", ["llama3.2", "a:b", "A_b-1.2:latest", "hf.co/x/y:Q4_K", "a" * 160])
def test_model_path(model: str) -> None:
    """The one prefix route takes a model's name, with its host and namespace if it has them."""
    route = routes.find(f"/v1/models/{model}")
    assert isinstance(route, Route)
    assert Class.READ == route.class_


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/api/none", Dialect.OLLAMA),
        ("/v1/none", Dialect.OPENAI),
        ("/v1/messages/count_tokens", Dialect.ANTHROPIC),
        ("/", Dialect.OLLAMA),
    ],
)
def test_dialect_of_unknown_paths(path: str, dialect: Dialect) -> None:
    """Even a refusal of an unknown path is worded for the SDK that asks."""
    assert dialect == routes.dialect_of(path)

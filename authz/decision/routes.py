"""List the paths that exist. Default deny: what is not in this table is refused, whatever the key.

A path is compared byte for byte; it is never decoded, cleaned or folded, since Ollama's router
matches the decoded one. caddy/testdata/contract/routes.json binds this table to the guard's.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from attrs import frozen

from authz.types import Dialect


class Class(StrEnum):
    """The kind of a route: proxied and billed, answered here, or answered without a key."""

    METERED = "metered"
    READ = "read"
    PUBLIC = "public"


@frozen
class Route:
    """A known path with the methods it takes."""

    path: str
    methods: tuple[str, ...]
    class_: Class
    dialect: Dialect
    has_output: bool = True


@frozen
class Unknown:
    """No such path; `is_mutation` if it would change models or accounts."""

    dialect: Dialect
    is_mutation: bool


MODEL_PATH: Final = "/v1/models/{id}"
MODEL_ID: Final = r"(?=.{1,160}\Z)[A-Za-z0-9._:-]+(?:/[A-Za-z0-9._:-]+)*"
_MODEL_PATH = re.compile(f"/v1/models/{MODEL_ID}", re.ASCII)

MUTATIONS: Final = (
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs/",
    "/api/me",
    "/api/signout",
    "/api/user/keys/",
    "/api/experimental/",
    "/api/codex/",
)

_OLLAMA, _OPENAI, _ANTHROPIC = Dialect.OLLAMA, Dialect.OPENAI, Dialect.ANTHROPIC

ROUTES: Final = (
    Route("/api/chat", ("POST",), Class.METERED, _OLLAMA),
    Route("/api/generate", ("POST",), Class.METERED, _OLLAMA),
    Route("/api/embed", ("POST",), Class.METERED, _OLLAMA, has_output=False),
    Route("/api/embeddings", ("POST",), Class.METERED, _OLLAMA, has_output=False),
    Route("/v1/chat/completions", ("POST",), Class.METERED, _OPENAI),
    Route("/v1/completions", ("POST",), Class.METERED, _OPENAI),
    Route("/v1/embeddings", ("POST",), Class.METERED, _OPENAI, has_output=False),
    Route("/v1/responses", ("POST",), Class.METERED, _OPENAI),
    Route("/v1/messages", ("POST",), Class.METERED, _ANTHROPIC),
    Route("/api/version", ("GET", "HEAD"), Class.READ, _OLLAMA),
    Route("/api/tags", ("GET", "HEAD"), Class.READ, _OLLAMA),
    Route("/api/ps", ("GET",), Class.READ, _OLLAMA),
    Route("/api/show", ("POST",), Class.READ, _OLLAMA),
    Route("/v1/models", ("GET", "HEAD"), Class.READ, _OPENAI),
    Route(MODEL_PATH, ("GET",), Class.READ, _OPENAI),
    Route("/v1/messages/count_tokens", ("POST",), Class.READ, _ANTHROPIC),
    Route("/api/status", ("GET",), Class.READ, _OLLAMA),
    Route("/api/experimental/model-recommendations", ("GET",), Class.READ, _OLLAMA),
    Route("/v1/usage", ("GET",), Class.READ, _OPENAI),
    Route("/v1/limits", ("GET",), Class.READ, _OPENAI),
    Route("/me", ("GET",), Class.PUBLIC, _OLLAMA),
    Route("/healthz", ("GET",), Class.PUBLIC, _OLLAMA),
    Route("/readyz", ("GET",), Class.PUBLIC, _OLLAMA),
    Route("/", ("GET", "HEAD"), Class.PUBLIC, _OLLAMA),
)

EXACT: Final = {route.path: route for route in ROUTES if route.path != MODEL_PATH}
"""Every route but the one with a model's name at the end of its path."""

READ_PATHS: Final = tuple(
    route.path.replace("{id}", "{model:path}") for route in ROUTES if route.class_ is Class.READ
)
"""The paths that Litestar routes; the guard has compared the raw path, and the Ask is judged."""

_OF_A_MODEL: Final = next(route for route in ROUTES if route.path == MODEL_PATH)


def find(path: str) -> Route | Unknown:
    """Find the route of a raw path (no query)."""
    route = EXACT.get(path)
    if route is not None:
        return route
    if _MODEL_PATH.fullmatch(path):
        return _OF_A_MODEL
    return Unknown(dialect_of(path), is_mutation=_is_mutation(path))


def dialect_of(path: str) -> Dialect:
    """Return the dialect of the clients that ask for this path, known or not."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.OLLAMA


def _is_mutation(path: str) -> bool:
    return any(path.startswith(known) if known.endswith("/") else path == known for known in MUTATIONS)

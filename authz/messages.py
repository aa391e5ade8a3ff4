"""The messages between Caddy's modules and authz: Ask in, Grant or Denial out.

They travel as JSON in headers, so they are ASCII only. Readers ignore unknown fields; null means
"not given", never 0. caddy/testdata/contract holds golden samples that both sides read.
"""

from __future__ import annotations

import json
from typing import Final
from uuid import UUID

import msgspec

VERSION: Final = 1

ASK_HEADER: Final = "X-Nz-Ask"
GRANT_HEADER: Final = "X-Nz-Grant"
KNOWN_HEADER: Final = "X-Nz-Known"
DENIAL_HEADER: Final = "X-Nz-Denial"

BODY_UNREAD: Final = "body_unread"
"""The problem of an Ask about a key alone: the guard reads the body once the key is known."""


class Done(msgspec.Struct, frozen=True):
    """A request that has ended on the asking node: its slot is free."""

    id: UUID
    tenant: UUID
    key: UUID


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request wants of the GPU that it shares; None where it says nothing that Ollama could read."""

    num_ctx: int | None = None
    keep_alive_s: int | None = None
    num_gpu: int | None = None
    stop: int | None = None
    inputs: int | None = None
    schema_bytes: int | None = None
    logprobs: int | None = None


class Signed(msgspec.Struct, frozen=True):
    """What a client that signs its requests sends in place of a key."""

    key: str
    """The Ed25519 public key in base64, without its algorithm."""
    signature: str
    """Of `METHOD,path?ts=SECONDS`, in base64."""
    ts: int | None
    """In seconds since 1970; None if the request does not say, or in no form that was signed."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The guard's reading of a request."""

    v: int
    id: UUID
    node: UUID
    boot: UUID
    trace_id: str | None = None
    """The 32 hex digits of the traceparent, if client or Caddy trace the request."""
    ip: str
    method: str
    path: str
    lookup: str | None = None
    in_path: bool = False
    """The path had a key in it, or could be meant so."""
    length: int | None = None
    model: str | None = None
    stream: bool | None = None
    max_output: int | None = None
    prompt_bytes: int = 0
    bounds: dict[str, int] | None = None
    """Upper bounds of the prompt's tokens by the digest of a model, and `bytes` for any other."""
    images: int = 0
    messages: int = 0
    tools: int = 0
    asked: Asked | None = None
    signed: Signed | None = None
    """None unless the client signs in place of sending a key."""
    problem: str | None = None
    field: str | None = None
    done: tuple[Done, ...] = ()

    @property
    def minted_at_s(self) -> float:
        """Return when the guard minted the id, since 1970 (a UUIDv7 starts with milliseconds)."""
        return (self.id.int >> 80) / 1000


class Tokens(msgspec.Struct, frozen=True):
    """Tokens held for a request, or the most that it can be charged."""

    input: int
    output: int


class WindowIds(msgspec.Struct, frozen=True):
    """The day and month that pay for a request."""

    day: str
    month: str


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The right to send exactly the request of this id to a backend."""

    v: int = VERSION
    id: UUID
    tenant: UUID
    key: UUID
    backends: tuple[str, ...]
    slots: tuple[int, ...] = ()
    """Of each backend: how many requests this node may have in flight there; 0 is any number."""
    priority: str = "interactive"
    weight: int = 1
    """Of the tenant, where requests wait for a slot."""
    model: str | None = None
    """To run in place of the one that was asked for, which is an alias."""
    digest: str | None = None
    """Of the model that runs, if the backends report it: whose bound must hold."""
    max_output: int | None
    reserved: Tokens
    ceiling: Tokens
    windows: WindowIds
    drop: tuple[str, ...]
    set: dict[str, int] = {}
    """Fields of the body that are lowered to a value."""
    headers: dict[str, str]
    cold: bool = False
    """The backend must load the model first."""
    deadline_s: int
    log_prompt_s: int = 0
    """How long prompt and answer are kept, sealed; 0 keeps none."""
    end_user: bool = False
    """The journal has the end user that the client names."""


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal of the request of this id; status and body of the answer are the client's."""

    v: int = VERSION
    id: UUID
    tenant: UUID | None = None
    key: UUID | None = None
    reason: str


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an Ask about a key alone: it may send requests. It grants nothing."""

    v: int = VERSION
    id: UUID


_ask = msgspec.json.Decoder(Ask)
_encoder = msgspec.json.Encoder()


def read_ask(header: bytes) -> Ask:
    """Decode an Ask; raises msgspec.DecodeError on anything that is not one of our version."""
    ask = _ask.decode(header)
    if ask.v != VERSION:
        raise msgspec.ValidationError(f"Ask of version {ask.v}, expected {VERSION}")
    return ask


def holder(request_id: UUID, *, tenant: UUID, key: UUID) -> Grant:
    """Return a Grant that admits nothing: with a read route's answer it names tenant and key."""
    return Grant(
        id=request_id,
        tenant=tenant,
        key=key,
        backends=(),
        max_output=None,
        reserved=Tokens(0, 0),
        ceiling=Tokens(0, 0),
        windows=WindowIds("", ""),
        drop=(),
        headers={},
        deadline_s=0,
    )


def write(message: Grant | Denial | Known) -> bytes:
    """Encode a message for a header: compact, ASCII, without a line break."""
    text = _encoder.encode(message)
    return text if text.isascii() else json.dumps(json.loads(text), separators=(",", ":")).encode()

"""Word refusals for clients: one table of reasons, one body per dialect.

Shapes: OpenAI {"error":{message,type,param,code}}, Anthropic {"type":"error","error":{type,message},
"request_id"}, Ollama {"error":"text"}. All 401 are one answer: a client without the secret learns nothing.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import msgspec
from attrs import field, frozen

from authz.decision.concealed import concealed
from authz.log import redacted
from authz.types import Dialect

if TYPE_CHECKING:
    from uuid import UUID

    from authz.types import Identity

SIGN_SENTENCE: Final = "The ollama program signs if OLLAMA_AUTH=1 is set and its public key is registered."
KEY_SENTENCE: Final = "Invalid or missing API key: send a valid key as 'Authorization: Bearer nz_...'."
RETRY_SOON: Final = {"retry-after": "1"}
NEVER_RETRY: Final = {"x-should-retry": "false"}
"""Else coding agents repeat a 401 for a minute; and some SDKs sleep for whatever a Retry-After says."""

RETRY_SENTENCE: Final = "The gateway can't check this request right now: try again in a second."


class Reason(StrEnum):
    """The reason of a refusal; caddy/testdata/contract/reasons.json binds these words to the guard's."""

    TARGET_INVALID = "target_invalid"
    PATH_MUTATION = "path_mutation"
    PATH_UNKNOWN = "path_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CREDENTIAL_CONFLICT = "credential_conflict"
    KEY_MISSING = "key_missing"
    KEY_UNKNOWN = "key_unknown"
    KEY_REVOKED = "key_revoked"
    KEY_DISABLED = "key_disabled"
    KEY_EXPIRED = "key_expired"
    KEY_IN_PATH = "key_in_path"
    TENANT_DISABLED = "tenant_disabled"
    SIGNATURE_TIME = "signature_time"
    SIGNATURE_USED = "signature_used"
    BODY_NOT_JSON = "body_not_json"
    BODY_DUPLICATE_FIELD = "body_duplicate_field"
    BODY_FIELD = "body_field"
    BODY_KIND = "body_kind"
    BODY_TOO_DEEP = "body_too_deep"
    BODY_TOO_MUCH = "body_too_much"
    BODY_TOO_LARGE = "body_too_large"
    BODY_ENCODING = "body_encoding"
    MODEL_MISSING = "model_missing"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    CIDR = "cidr"
    MODEL_UNKNOWN = "model_unknown"
    RATE_REQUESTS = "rate_requests"
    RATE_TOKENS = "rate_tokens"
    RATE_READS = "rate_reads"
    CONCURRENCY = "concurrency"
    BUDGET_HELD = "budget_held"
    BUDGET_EXHAUSTED = "budget_exhausted"
    BUDGET_TOO_SMALL = "budget_too_small"
    SOURCE_LIMITED = "source_limited"
    METERING_UNAVAILABLE = "metering_unavailable"
    ASK_LATE = "ask_late"
    NODE_UNKNOWN = "node_unknown"
    REBUILDING = "rebuilding"
    REQUEST_CLOSED = "request_closed"
    CLIENT_GONE = "client_gone"
    LIMITER_UNAVAILABLE = "limiter_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    BACKEND_UNAVAILABLE = "backend_unavailable"
    OVERLOADED = "overloaded"
    DECISION_FAILED = "decision_failed"


@frozen
class Answer:
    """A complete HTTP answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@frozen
class Refusal:
    """A refusal: its reason, the tenant and key it concerns, and the words that its sentence needs."""

    reason: Reason
    identity: Identity | None = None
    headers: dict[str, str] = field(factory=dict)
    words: dict[str, str] = field(factory=dict)


@frozen
class Wording:
    """One status, one sentence, and one error type per dialect."""

    status: int
    sentence: str
    openai_type: str
    openai_code: str | None
    anthropic_type: str
    headers: dict[str, str] = field(factory=dict)
    statuses: dict[Dialect, int] = field(factory=dict)
    """Of the dialects whose clients expect another one."""
    is_passing: bool = False
    """A retry may succeed; every other answer says that none does."""


def _bad(sentence: str, code: str | None = None, status: int = 400) -> Wording:
    anthropic_type = (
        "request_too_large" if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else "invalid_request_error"
    )
    return Wording(status, sentence, "invalid_request_error", code, anthropic_type)


def _key() -> Wording:
    challenge = {"www-authenticate": "Bearer"}
    return Wording(
        401, KEY_SENTENCE, "invalid_request_error", "invalid_api_key", "authentication_error", challenge
    )


def _forbidden(sentence: str, code: str) -> Wording:
    return Wording(403, sentence, "invalid_request_error", code, "permission_error")


def _not_found(sentence: str, code: str, statuses: dict[Dialect, int] | None = None) -> Wording:
    return Wording(404, sentence, "invalid_request_error", code, "not_found_error", statuses=statuses or {})


def _unavailable(sentence: str = RETRY_SENTENCE, anthropic_type: str = "overloaded_error") -> Wording:
    return Wording(503, sentence, "server_error", "service_unavailable", anthropic_type, is_passing=True)


def _limit(sentence: str, openai_type: str) -> Wording:
    return Wording(429, sentence, openai_type, "rate_limit_exceeded", "rate_limit_error", is_passing=True)


def _quota(sentence: str) -> Wording:
    code = "insufficient_quota"
    return Wording(429, sentence, code, code, "billing_error", statuses={Dialect.ANTHROPIC: 402})


WORDINGS: Final = {
    Reason.TARGET_INVALID: _bad(
        "This is not a request target the gateway takes: send the documented path, unencoded."
    ),
    Reason.PATH_MUTATION: _forbidden(
        "{mutation} through this gateway: ask its operator.", "path_not_allowed"
    ),
    Reason.PATH_UNKNOWN: _not_found(
        "This gateway does not serve {path}: use a documented inference route.", "path_unknown"
    ),
    Reason.METHOD_NOT_ALLOWED: _bad(
        "That method is not allowed here: use one that the Allow header names.", "method_not_allowed", 405
    ),
    Reason.CREDENTIAL_CONFLICT: _bad(
        "More than one credential was sent: send exactly one API key, in one header.", "credential_conflict"
    ),
    Reason.KEY_MISSING: _key(),
    Reason.KEY_UNKNOWN: _key(),
    Reason.KEY_REVOKED: _key(),
    Reason.KEY_DISABLED: _key(),
    Reason.KEY_EXPIRED: _key(),
    Reason.KEY_IN_PATH: _key(),
    Reason.TENANT_DISABLED: _key(),
    # The ollama program shows the sentence of a 403 alone: `run` makes "You need to be signed in" of a 401.
    Reason.SIGNATURE_TIME: _forbidden(
        "The request was signed at {signed}, and it is {now} here: set the clock of your machine.",
        "signature_time",
    ),
    Reason.SIGNATURE_USED: _forbidden(
        "The signature of this request was used from another address first: send the request again.",
        "signature_used",
    ),
    Reason.BODY_NOT_JSON: _bad("The body is not valid JSON: send one JSON object in UTF-8."),
    Reason.BODY_DUPLICATE_FIELD: _bad(
        "A field is given twice, or in two spellings: send each field once, in lower case."
    ),
    Reason.BODY_FIELD: _bad(
        "A field of the body has a wrong type or an escaped name: check the request against the API."
    ),
    Reason.BODY_KIND: _bad(
        "The body names a kind in '{field}' that this gateway can't bill, such as web search or compaction: "
        "leave it out, or use a documented one.",
        "kind_not_supported",
    ),
    Reason.BODY_TOO_DEEP: _bad("The body is nested too deeply: send at most 128 levels."),
    Reason.BODY_TOO_MUCH: _bad(
        "The body asks for {count} {what} in '{field}', and this key may ask for {limit}: ask for fewer.",
        "too_many",
    ),
    Reason.BODY_TOO_LARGE: _bad(
        "The body is larger than this gateway takes: send less.", "body_too_large", 413
    ),
    Reason.BODY_ENCODING: _bad(
        "Encoded bodies are not taken: send plain JSON without Content-Encoding.", "body_encoding", 415
    ),
    Reason.MODEL_MISSING: _bad("The field 'model' is missing: name the model to use.", "model_missing"),
    # Coding agents read a 403 as a wrong key, and OpenAI itself answers so for a model that is not one's own.
    Reason.MODEL_NOT_ALLOWED: _not_found(
        "This key may not use that model: ask for a key that may.", "model_not_found", {Dialect.OLLAMA: 403}
    ),
    Reason.CIDR: _forbidden(
        "This key may not be used from this address: ask its owner.", "address_not_allowed"
    ),
    Reason.MODEL_UNKNOWN: Wording(
        404, "model '{model}' not found", "not_found_error", None, "not_found_error"
    ),
    Reason.RATE_REQUESTS: _limit(
        "{owner} limit of {limit} requests per minute is reached ({used} used): try again in {seconds} s.",
        "requests",
    ),
    Reason.RATE_TOKENS: _limit(
        "{owner} limit of {limit} tokens per minute is reached ({used} used): try again in {seconds} s.",
        "tokens",
    ),
    Reason.RATE_READS: _limit(
        "This key has asked {limit} times in a minute for what is not billed: try again in {seconds} s.",
        "requests",
    ),
    Reason.CONCURRENCY: _limit(
        "{owner} limit of {limit} requests at a time is reached ({used} run): try again in {seconds} s.",
        "requests",
    ),
    Reason.BUDGET_HELD: _limit(
        "{owner} budget of {limit} tokens {period} is held by running requests "
        "({used} used, {held} held): this request may need up to {needed} tokens, {left} are free; "
        "try again in {seconds} s.",
        "tokens",
    ),
    Reason.BUDGET_EXHAUSTED: _quota(
        "{owner} budget of {limit} tokens {period} is used up ({used} used): {remedy}."
    ),
    Reason.BUDGET_TOO_SMALL: _quota(
        "{owner} budget of {limit} tokens {period} does not suffice: this request may need up to {needed} "
        "tokens, {left} are left; {remedy}."
    ),
    Reason.SOURCE_LIMITED: Wording(
        429,
        "Too many wrong API keys came from this address: try again in a second.",
        "requests",
        "rate_limit_exceeded",
        "rate_limit_error",
        is_passing=True,
    ),
    Reason.METERING_UNAVAILABLE: _unavailable("Usage can't be settled right now: try again in a second."),
    Reason.ASK_LATE: _unavailable(
        "The gateway was too slow for this request, or its machines' clocks differ: try again in a second."
    ),
    Reason.NODE_UNKNOWN: _unavailable("The gateway is still starting: try again in a second."),
    Reason.REBUILDING: _unavailable("The gateway is restoring its counters: try again in a second."),
    Reason.REQUEST_CLOSED: _unavailable(),
    Reason.CLIENT_GONE: _unavailable(),
    Reason.LIMITER_UNAVAILABLE: _unavailable(),
    Reason.STORE_UNAVAILABLE: _unavailable(),
    Reason.BACKEND_UNAVAILABLE: _unavailable("No backend can answer now: try again shortly.", "api_error"),
    Reason.OVERLOADED: _unavailable(),
    Reason.DECISION_FAILED: _unavailable(),
}


def word(refusal: Refusal, *, dialect: Dialect, request_id: UUID, is_signed: bool = False) -> Answer:
    """Return a refusal as the HTTP answer that clients of a dialect expect, or those that sign."""
    wording = WORDINGS[refusal.reason]
    words = {name: concealed(redacted(value)) for name, value in refusal.words.items()}
    sentence, status = wording.sentence.format(**words), wording.statuses.get(dialect, wording.status)
    challenge = wording.headers
    if is_signed and status == HTTPStatus.UNAUTHORIZED:
        sentence, status, challenge = f"{sentence} {SIGN_SENTENCE}", int(HTTPStatus.FORBIDDEN), {}
    body = _body(wording, dialect, sentence, str(request_id), status=status)
    headers = {"content-type": "application/json"} | (RETRY_SOON if wording.is_passing else NEVER_RETRY)
    return Answer(status, headers | challenge | refusal.headers, body)


def _body(wording: Wording, dialect: Dialect, sentence: str, request_id: str, *, status: int) -> bytes:
    shape: object
    if dialect is Dialect.OLLAMA:
        shape = {"error": sentence}
        if status == HTTPStatus.UNAUTHORIZED:  # the ollama program prints this field, and no other
            shape = {"error": sentence, "status": f"{sentence} {SIGN_SENTENCE}"}
    elif dialect is Dialect.ANTHROPIC:
        error = {"type": wording.anthropic_type, "message": sentence}
        shape = {"type": "error", "error": error, "request_id": request_id}
    else:
        told = {"message": sentence, "type": wording.openai_type, "param": None, "code": wording.openai_code}
        shape = {"error": told}
    return msgspec.json.encode(shape)

"""What a refused client reads: one table of reasons, one body per dialect.

Shapes: OpenAI {"error":{message,type,param,code}}, Anthropic {"type":"error","error":{type,message},
"request_id"}, Ollama {"error":"text"}. All 401 are one answer: whoever lacks the secret learns nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from attrs import field, frozen

from authz.log import redacted
from authz.types import Dialect

if TYPE_CHECKING:
    from uuid import UUID

    from authz.types import Identity

KEY_SENTENCE: Final = "Invalid or missing API key: send a valid key as 'Authorization: Bearer nz_...'."
RETRY_SENTENCE: Final = "The gateway can't check this request right now: try again in a second."


@frozen
class Answer:
    """A complete HTTP answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@frozen
class Refusal:
    """No, and why: a reason of REASONS, whom it concerns, and the words its sentence needs."""

    reason: str
    identity: Identity | None = None
    headers: dict[str, str] = field(factory=dict)
    words: dict[str, str] = field(factory=dict)


@frozen
class Reason:
    """Why a request is refused: one status, one sentence, one error type per dialect."""

    status: int
    sentence: str
    openai_type: str
    openai_code: str | None
    anthropic_type: str
    headers: dict[str, str] = field(factory=dict)
    anthropic_status: int | None = None


def _bad(sentence: str, code: str | None = None, status: int = 400) -> Reason:
    anthropic_type = "request_too_large" if status == 413 else "invalid_request_error"  # noqa: PLR2004
    return Reason(status, sentence, "invalid_request_error", code, anthropic_type)


def _key(headers: dict[str, str] | None = None) -> Reason:
    challenge = {"www-authenticate": "Bearer"} | (headers or {})
    return Reason(
        401, KEY_SENTENCE, "invalid_request_error", "invalid_api_key", "authentication_error", challenge
    )


def _forbidden(sentence: str, code: str) -> Reason:
    return Reason(403, sentence, "invalid_request_error", code, "permission_error")


def _unavailable(sentence: str = RETRY_SENTENCE) -> Reason:
    return Reason(
        503, sentence, "server_error", "service_unavailable", "overloaded_error", {"retry-after": "1"}
    )


def _limit(sentence: str, openai_type: str) -> Reason:
    return Reason(429, sentence, openai_type, "rate_limit_exceeded", "rate_limit_error")


REASONS: Final = {
    "target_invalid": _bad(
        "This is not a request target the gateway takes: send the documented path, unencoded."
    ),
    "path_mutation": _forbidden(
        "Models and accounts can't be changed through this gateway: ask its operator.", "path_not_allowed"
    ),
    "path_unknown": _forbidden(
        "This gateway does not serve that path: use a documented inference route.", "path_not_allowed"
    ),
    "method_not_allowed": _bad(
        "That method is not allowed here: use one that the Allow header names.", "method_not_allowed", 405
    ),
    "credential_conflict": _bad(
        "More than one credential was sent: send exactly one API key, in one header.", "credential_conflict"
    ),
    "key_missing": _key(),
    "key_unknown": _key(),
    "key_mismatch": _key(),
    "key_revoked": _key(),
    "key_disabled": _key(),
    "key_expired": _key(),
    "tenant_disabled": _key(),
    "body_not_json": _bad("The body is not valid JSON: send one JSON object in UTF-8."),
    "body_duplicate_field": _bad(
        "A field is given twice, or in two spellings: send each field once, in lower case."
    ),
    "body_field": _bad(
        "A field of the body has a wrong type or an escaped name: check the request against the API."
    ),
    "body_too_deep": _bad("The body is nested too deeply: send at most 128 levels."),
    "body_too_large": _bad("The body is larger than this gateway takes: send less.", "body_too_large", 413),
    "body_encoding": _bad(
        "Encoded bodies are not taken: send plain JSON without Content-Encoding.", "body_encoding", 415
    ),
    "model_missing": _bad("The field 'model' is missing: name the model to use.", "model_missing"),
    "model_not_allowed": _forbidden(
        "This key may not use that model: ask for a key that may.", "model_not_allowed"
    ),
    "cidr": _forbidden("This key may not be used from this address: ask its owner.", "address_not_allowed"),
    "model_unknown": Reason(404, "model '{model}' not found", "not_found_error", None, "not_found_error"),
    "rate_requests": _limit(
        "{whose} limit of {limit} requests per minute is reached ({used} used): try again in {seconds} s.",
        "requests",
    ),
    "rate_tokens": _limit(
        "{whose} limit of {limit} tokens per minute is reached ({used} used): try again in {seconds} s.",
        "tokens",
    ),
    "concurrency": _limit(
        "{whose} limit of {limit} requests at a time is reached ({used} run): try again in {seconds} s.",
        "requests",
    ),
    "budget_held": _limit(
        "{whose} budget of {limit} tokens {period} is held by running requests "
        "({used} used, {held} held): try again in {seconds} s.",
        "tokens",
    ),
    "budget_exhausted": Reason(
        429,
        "{whose} budget of {limit} tokens {period} is used up ({used} used): {remedy}.",
        "insufficient_quota",
        "insufficient_quota",
        "billing_error",
        anthropic_status=402,
    ),
    "source_limited": Reason(
        429,
        "Too many wrong API keys came from this address: try again in a second.",
        "requests",
        "rate_limit_exceeded",
        "rate_limit_error",
        {"retry-after": "1"},
    ),
    "metering_unavailable": _unavailable("Usage can't be settled right now: try again in a second."),
    "ask_late": _unavailable(),
    "node_unknown": _unavailable("The gateway is still starting: try again in a second."),
    "rebuilding": _unavailable("The gateway is restoring its counters: try again in a second."),
    "request_closed": _unavailable(),
    "client_gone": _unavailable(),
    "limiter_unavailable": _unavailable(),
    "store_unavailable": _unavailable(),
    "backend_unavailable": _unavailable("No backend can answer right now: try again in a second."),
    "overloaded": _unavailable(),
}


def word(refusal: Refusal, *, dialect: Dialect, request_id: UUID) -> Answer:
    """Word a refusal for whoever reads it."""
    reason = REASONS[refusal.reason]
    words = {name: redacted(value) for name, value in refusal.words.items()}
    body = _body(reason, dialect, reason.sentence.format(**words), str(request_id))
    headers = {"content-type": "application/json"} | reason.headers | refusal.headers
    is_anthropic = dialect is Dialect.ANTHROPIC
    status = reason.anthropic_status if is_anthropic and reason.anthropic_status else reason.status
    return Answer(status, headers, body)


def _body(reason: Reason, dialect: Dialect, sentence: str, request_id: str) -> bytes:
    shape: object
    if dialect is Dialect.OLLAMA:
        shape = {"error": sentence}
    elif dialect is Dialect.ANTHROPIC:
        error = {"type": reason.anthropic_type, "message": sentence}
        shape = {"type": "error", "error": error, "request_id": request_id}
    else:
        shape = {
            "error": {
                "message": sentence,
                "type": reason.openai_type,
                "param": None,
                "code": reason.openai_code,
            }
        }
    return msgspec.json.encode(shape)

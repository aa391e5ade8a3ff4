"""Whole JSON bodies in each dialect: their type and ending, and errors as Ollama words them."""

from collections.abc import Callable
from secrets import token_hex
from typing import Final

import msgspec
from attrs import frozen

from authz.demo.gojson import encode
from authz.demo.types import CHARSET_JSON, Refusal


class _Native(msgspec.Struct):
    error: str


class _OpenAIError(msgspec.Struct):
    message: str
    type: str
    param: None
    code: str | None


class _OpenAI(msgspec.Struct):
    error: _OpenAIError


class _AnthropicError(msgspec.Struct):
    type: str
    message: str


class _Anthropic(msgspec.Struct):
    type: str
    error: _AnthropicError
    request_id: str


def _native(refusal: Refusal) -> bytes:
    return encode(_Native(refusal.text))


def _openai(refusal: Refusal) -> bytes:
    kinds = {400: "invalid_request_error", 404: "not_found_error"}
    kind = kinds.get(refusal.status, "api_error")
    return encode(_OpenAI(_OpenAIError(refusal.text, kind, None, refusal.code)))


def _anthropic(refusal: Refusal) -> bytes:
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
        503: "overloaded_error",
    }
    error = _AnthropicError(kinds.get(refusal.status, "api_error"), refusal.text)
    return encode(_Anthropic("error", error, f"req_{token_hex(12)}"))


@frozen
class Wording:
    """How a family of routes words a body that is not a stream."""

    error: Callable[[Refusal], bytes]
    json_type: str
    ending: bytes
    """Ollama's `/v1` writers end a body with a newline."""

    def whole(self, body: bytes) -> tuple[str, bytes]:
        """Give an answer its type and ending."""
        return self.json_type, body + self.ending

    def refused(self, refusal: Refusal) -> tuple[str, bytes]:
        """Word a refusal; an early one never saw the writer that adds an ending."""
        body = self.error(refusal)
        return (CHARSET_JSON, body) if refusal.early else self.whole(body)


NATIVE: Final = Wording(_native, CHARSET_JSON, b"")
OPENAI: Final = Wording(_openai, "application/json", b"\n")
ANTHROPIC: Final = Wording(_anthropic, "application/json", b"\n")

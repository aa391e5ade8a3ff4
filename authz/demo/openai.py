"""What OpenAI's two generation routes share: request fields, usage, events, the dialect."""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from authz.demo import errors
from authz.demo.gojson import encode
from authz.demo.types import Call, Refusal, Usage
from authz.demo.voice import Dialect, Voice

FINGERPRINT: Final = "fp_ollama"
DONE: Final = b"data: [DONE]\n\n"
IDS: Final = 999
"""Ollama numbers its OpenAI replies at random below this."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Request(msgspec.Struct):
    """The fields that both routes read."""

    model: str = ""
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None


class CachedTokens(msgspec.Struct):
    """The part of the prompt that was not computed again."""

    cached_tokens: int


class UsageShape(msgspec.Struct):
    """Usage, all zero for an answer that broke; the cached part only when known."""

    prompt_tokens: int = 0
    prompt_tokens_details: CachedTokens | UnsetType = UNSET
    completion_tokens: int = 0
    total_tokens: int = 0


def call(request: Request) -> Call:
    """Understand the fields that both routes read."""
    stop = [request.stop] if isinstance(request.stop, str) else request.stop
    options = request.stream_options or _StreamOptions()
    return Call(
        model=request.model,
        stream=request.stream,
        usage_asked=options.include_usage,
        max_output=request.max_tokens,
        stop=tuple(stop or ()),
    )


def frame(shape: object) -> bytes:
    """Make a server-sent event of OpenAI's kind."""
    return b"data: " + encode(shape) + b"\n\n"


def usage_shape(usage: Usage | None) -> UsageShape:
    """Shape the usage of a whole answer."""
    if usage is None:
        return UsageShape()
    return UsageShape(
        prompt_tokens=usage.input_tokens,
        prompt_tokens_details=CachedTokens(usage.cached_tokens),
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
    )


def dialect(
    path: str, understand: Callable[[bytes], Call | Refusal], voice: Callable[[Call], Voice]
) -> Dialect:
    """Make the dialect of one of OpenAI's routes."""
    return Dialect(
        path=path,
        understand=understand,
        voice=lambda asked, _body: voice(asked),
        wording=errors.OPENAI,
    )

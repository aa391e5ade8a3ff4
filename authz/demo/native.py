"""`/api/chat` and `/api/generate`: JSON lines, or one object."""

from collections.abc import Callable
from datetime import datetime
from itertools import starmap
from typing import Final

import msgspec
from attrs import evolve, frozen
from msgspec import UNSET, UnsetType

from authz.demo import errors
from authz.demo.gojson import encode
from authz.demo.requests import (
    NOTHING,
    Content,
    LogprobShape,
    ToolShape,
    decode,
    logprobs,
    raw_text,
    texts,
    tool,
)
from authz.demo.types import Call, Line, Refusal, ToolCall, Turn, Usage
from authz.demo.voice import Dialect, missing_model

_LOAD_NS: Final = 1_000_000
_PROMPT_NS: Final = 500_000
_EMPTY: Final = "missing request body"


class _Options(msgspec.Struct):
    num_predict: int | None = None
    stop: list[str] | str | None = None


class _Message(msgspec.Struct):
    role: str = ""
    content: Content = None
    tool_calls: msgspec.Raw = NOTHING


class _Request(msgspec.Struct):
    model: str = ""
    stream: bool | None = None
    options: _Options | None = None
    keep_alive: int | float | str | None = None
    think: bool | str | None = None
    format: object = None
    logprobs: bool = False
    top_logprobs: int = 0


class _ChatRequest(_Request):
    messages: list[_Message] | None = None
    tools: list[ToolShape] | None = None


class _GenerateRequest(_Request):
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    raw: bool = False


class _FunctionCall(msgspec.Struct):
    index: int
    name: str
    arguments: msgspec.Raw


class _ToolCall(msgspec.Struct):
    id: str
    function: _FunctionCall


class _Reply(msgspec.Struct):
    role: str
    content: str
    thinking: str | UnsetType
    tool_calls: list[_ToolCall] | UnsetType


class _Chat(msgspec.Struct, kw_only=True):
    """A step of `/api/chat`; Go leaves out every count that is zero."""

    model: str
    created_at: str
    message: _Reply
    done: bool
    done_reason: str | UnsetType = UNSET
    logprobs: list[LogprobShape] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_cached_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class _Generate(msgspec.Struct, kw_only=True):
    """A step of `/api/generate`: the same counts, in another order among their neighbours."""

    model: str
    created_at: str
    response: str
    done: bool
    done_reason: str | UnsetType = UNSET
    context: tuple[int, ...] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_cached_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[LogprobShape] | UnsetType = UNSET


def understand_chat(body: bytes) -> Call | Refusal:
    """Read a request of `/api/chat`; without messages it only loads the model."""
    request = decode(body, _ChatRequest, missing=_EMPTY)
    if isinstance(request, Refusal):
        return request
    if not request.model:
        return Refusal(400, "model is required", early=True)
    turns = (
        Turn(
            role=message.role.lower(),
            text=" ".join(texts(message.content)),
            tool_calls=raw_text(message.tool_calls),
        )
        for message in request.messages or ()
    )
    tools = tuple(tool(shape.function) for shape in request.tools or ())
    return evolve(_call(request), turns=tuple(turns), tools=tools)


def understand_generate(body: bytes) -> Call | Refusal:
    """Read a request of `/api/generate`; without a prompt it only loads the model."""
    request = decode(body, _GenerateRequest, missing=_EMPTY)
    if isinstance(request, Refusal):
        return request
    if not request.model:
        return missing_model("")
    system = (Turn("system", request.system),) if request.system else ()
    user = (Turn("user", request.prompt),) if request.prompt else ()
    return evolve(
        _call(request),
        chat=False,
        turns=system + user if user else (),
        raw_prompt=request.prompt if request.raw and request.prompt else None,
        suffix=request.suffix,
    )


def _call(request: _Request) -> Call:
    options = request.options or _Options()
    stop = [options.stop] if isinstance(options.stop, str) else options.stop
    is_schema = isinstance(request.format, dict)
    return Call(
        model=request.model,
        stream=request.stream is not False,
        unload=request.keep_alive in (0, "0", "0s"),
        max_output=options.num_predict,
        stop=tuple(stop or ()),
        think=None if request.think is None else bool(request.think),
        format="schema" if is_schema else str(request.format or ""),
        schema=request.format if is_schema else None,
        top_logprobs=request.top_logprobs if request.logprobs else None,
    )


@frozen
class _Voice:
    """A native reply: one line per step, each its own chunk."""

    call: Call

    def line(self, line: Line, now: datetime) -> list[bytes]:
        return [self.single(line, now) + b"\n"]

    def failure(self, text: str, now: datetime) -> list[bytes]:
        del now  # the native error line carries no time
        return [errors.NATIVE.error(Refusal(500, text)) + b"\n"]

    def single(self, whole: Line, now: datetime) -> bytes:
        write = _chat if self.call.chat else _generate
        return encode(write(self.call.model, whole, now))


def _chat(model: str, line: Line, now: datetime) -> _Chat:
    return _Chat(
        model=model,
        created_at=moment(now),
        message=_Reply(
            role="assistant",
            content=line.content,
            thinking=line.thinking or UNSET,
            tool_calls=list(starmap(_tool_call, enumerate(line.tool_calls))) or UNSET,
        ),
        done=line.reason is not None,
        done_reason=line.reason or UNSET,
        logprobs=logprobs(line.logprobs) or UNSET,
        **_counts(line.usage),
    )


def _generate(model: str, line: Line, now: datetime) -> _Generate:
    return _Generate(
        model=model,
        created_at=moment(now),
        response=line.content,
        done=line.reason is not None,
        done_reason=line.reason or UNSET,
        context=line.context or UNSET,
        logprobs=logprobs(line.logprobs) or UNSET,
        **_counts(line.usage),
    )


def _tool_call(index: int, call: ToolCall) -> _ToolCall:
    arguments = msgspec.Raw(call.arguments.encode())
    return _ToolCall(call.id, _FunctionCall(index, call.name, arguments))


def _counts(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    counts = {
        "total_duration": usage.total_ns + _LOAD_NS,
        "load_duration": _LOAD_NS,
        "prompt_eval_count": usage.input_tokens,
        "prompt_eval_duration": _PROMPT_NS,
        "eval_count": usage.output_tokens,
        "eval_duration": usage.eval_ns,
    }
    # The cached count is a pointer in Go: known and zero is said, all other zeros are left out.
    return {name: n for name, n in counts.items() if n} | {"prompt_eval_cached_count": usage.cached_tokens}


def moment(now: datetime) -> str:
    """Write a time as Go does in JSON: UTC, no trailing zeros."""
    whole, _, fraction = now.replace(tzinfo=None).isoformat().partition(".")
    return f"{whole}.{fraction.rstrip('0')}Z" if fraction else f"{whole}Z"


def _dialect(path: str, understand: Callable[[bytes], Call | Refusal]) -> Dialect:
    return Dialect(
        path=path,
        understand=understand,
        voice=lambda call, _body: _Voice(call),
        wording=errors.NATIVE,
        stream_type="application/x-ndjson",
        loads_whole=True,
    )


CHAT: Final = _dialect("/api/chat", understand_chat)
GENERATE: Final = _dialect("/api/generate", understand_generate)

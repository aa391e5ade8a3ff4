"""`/v1/chat/completions`: server-sent events, or one object."""

from datetime import datetime
from secrets import randbelow
from typing import Final

import msgspec
from attrs import define, evolve, field
from msgspec import UNSET, UnsetType

from authz.demo import openai
from authz.demo.gojson import encode
from authz.demo.openai import DONE, FINGERPRINT, IDS, UsageShape, frame, usage_shape
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
from authz.demo.types import Call, Line, Refusal, ToolCall, Turn


class _JSONSchema(msgspec.Struct):
    schema: object = None


class _Format(msgspec.Struct):
    type: str = ""
    json_schema: _JSONSchema | None = None


class _Turn(msgspec.Struct):
    role: str = ""
    content: Content = None
    tool_calls: msgspec.Raw = NOTHING


class _ChatRequest(openai.Request):
    messages: list[_Turn] | None = None
    tools: list[ToolShape] | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int = 0


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _ToolCall(msgspec.Struct):
    id: str
    index: int
    type: str
    function: _Function


class _Logprobs(msgspec.Struct):
    content: list[LogprobShape]


class _Message(msgspec.Struct, kw_only=True):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[_ToolCall] | UnsetType = UNSET


class _Choice(msgspec.Struct, kw_only=True):
    """A chat choice: `message` when whole, `delta` in a stream."""

    index: int = 0
    message: _Message | UnsetType = UNSET
    delta: _Message | UnsetType = UNSET
    finish_reason: str | None = None
    logprobs: _Logprobs | UnsetType = UNSET


class _Body(msgspec.Struct, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[_Choice]
    usage: UsageShape | UnsetType = UNSET


def understand_chat(body: bytes) -> Call | Refusal:
    """Read a request of `/v1/chat/completions`; every content part becomes a turn, as in Ollama."""
    request = decode(body, _ChatRequest, missing="EOF")
    if isinstance(request, Refusal):
        return request
    if not request.messages:
        return Refusal(400, "[] is too short - 'messages'", early=True)
    if not request.model:
        return Refusal(400, "model is required")
    if any(turn.content is None and not raw_text(turn.tool_calls) for turn in request.messages):
        return Refusal(400, "invalid message content type: <nil>", early=True)
    wanted = request.response_format or _Format()
    turns = (turn for message in request.messages for turn in _turns(message))
    return evolve(
        openai.call(request),
        turns=tuple(turns),
        tools=tuple(tool(shape.function) for shape in request.tools or ()),
        think=None if request.reasoning_effort is None else request.reasoning_effort != "none",
        format=wanted.type if wanted.type != "text" else "",
        schema=wanted.json_schema.schema if wanted.json_schema else None,
        top_logprobs=request.top_logprobs if request.logprobs else None,
    )


def _turns(message: _Turn) -> list[Turn]:
    calls = raw_text(message.tool_calls)
    return [Turn(message.role.lower(), text, calls) for text in texts(message.content)]


@define
class _Chat:
    """A reply of `/v1/chat/completions`: one time for all chunks, the role in the first only."""

    call: Call
    id: str = field(factory=lambda: f"chatcmpl-{randbelow(IDS)}")
    created: int | None = None
    has_tools: bool = False

    def line(self, line: Line, now: datetime) -> list[bytes]:
        """Word a step; what a last step says comes as frames of one chunk."""
        is_first = self.created is None
        # OpenAI stamps all chunks of a stream with one time, and so does Ollama.
        self.created = self.created or int(now.timestamp())
        self.has_tools = self.has_tools or bool(line.tool_calls)
        frames = [self._said(line, is_first=is_first)] if is_first or _says(line) else []
        if line.reason is not None:
            frames += self._finish(line)
        return [b"".join(frames)]

    def failure(self, text: str, now: datetime) -> list[bytes]:
        """Swallow the error as Ollama does: an empty chunk of no model, and no [DONE]."""
        del text, now
        return [self._chunk([_Choice(delta=_Message(content=""))], model="")]

    def single(self, whole: Line, now: datetime) -> bytes:
        """Word the whole answer with its usage."""
        message = _Message(
            role="assistant",
            content=whole.content,
            reasoning=whole.thinking or UNSET,
            tool_calls=_tool_calls(whole.tool_calls) or UNSET,
        )
        self.has_tools = bool(whole.tool_calls)
        choice = _Choice(
            message=message,
            finish_reason=self._reason(whole) if whole.reason else None,
            logprobs=_logprobs(whole),
        )
        return encode(
            _Body(
                id=self.id,
                object="chat.completion",
                created=int(now.timestamp()),
                model=self.call.model,
                choices=[choice],
                usage=usage_shape(whole.usage),
            )
        )

    def _said(self, line: Line, *, is_first: bool) -> bytes:
        delta = _Message(
            role="assistant" if is_first else UNSET,
            content=line.content,
            reasoning=line.thinking or UNSET,
            tool_calls=_tool_calls(line.tool_calls) or UNSET,
        )
        return self._chunk([_Choice(delta=delta, logprobs=_logprobs(line))])

    def _finish(self, line: Line) -> list[bytes]:
        choice = _Choice(delta=_Message(), finish_reason=self._reason(line))
        usage = [self._chunk([], usage=usage_shape(line.usage))] if self.call.usage_asked else []
        return [self._chunk([choice]), *usage, DONE]

    def _reason(self, line: Line) -> str | None:
        return "tool_calls" if line.reason == "stop" and self.has_tools else line.reason

    def _chunk(
        self,
        choices: list[_Choice],
        *,
        model: str | None = None,
        usage: UsageShape | UnsetType = UNSET,
    ) -> bytes:
        body = _Body(
            id=self.id,
            object="chat.completion.chunk",
            created=self.created or 0,
            model=self.call.model if model is None else model,
            choices=choices,
            usage=usage,
        )
        return frame(body)


def _says(line: Line) -> bool:
    # A last step without content is all finish: Ollama sends no empty chunk before it.
    is_trailer = line.reason is not None and not (line.content or line.thinking)
    return not is_trailer or bool(line.tool_calls or line.logprobs)


def _tool_calls(calls: tuple[ToolCall, ...]) -> list[_ToolCall]:
    return [
        _ToolCall(call.id, index, "function", _Function(call.name, call.arguments))
        for index, call in enumerate(calls)
    ]


def _logprobs(line: Line) -> _Logprobs | UnsetType:
    return _Logprobs(logprobs(line.logprobs)) if line.logprobs else UNSET


CHAT: Final = openai.dialect("/v1/chat/completions", understand_chat, _Chat)

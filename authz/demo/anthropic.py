"""`/v1/messages`: named server-sent events, or one object."""

from datetime import datetime
from secrets import token_hex
from typing import Final

import msgspec
from attrs import define, field
from msgspec import UNSET, UnsetType

from authz.demo import errors
from authz.demo.gojson import encode
from authz.demo.requests import NOTHING, Function, decode, tool
from authz.demo.types import Call, Line, Refusal, ToolCall, Turn, Usage
from authz.demo.voice import Dialect

_BYTES_PER_TOKEN: Final = 4


class _Block(msgspec.Struct, omit_defaults=True):
    """A content block of a request; unknown kinds count as nothing."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    id: str = ""
    name: str = ""
    input: msgspec.Raw = NOTHING
    tool_use_id: str = ""
    content: "str | list[_Block] | None" = None


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Block] = ""


class _Tool(msgspec.Struct):
    name: str = ""
    description: str = ""
    input_schema: msgspec.Raw = msgspec.Raw(b"{}")


class _Thinking(msgspec.Struct):
    type: str = ""


class _Request(msgspec.Struct):
    model: str = ""
    max_tokens: int = 0
    messages: list[_Message] = []
    system: str | list[_Block] | None = None
    stream: bool = False
    stop_sequences: list[str] = []
    tools: list[_Tool] = []
    thinking: _Thinking | None = None


class _Usage(msgspec.Struct):
    """Usage without the cached tokens, which stand beside it."""

    input_tokens: int
    cache_read_input_tokens: int | UnsetType
    output_tokens: int


class _Said(msgspec.Struct, kw_only=True):
    type: str
    text: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    input: msgspec.Raw | UnsetType = UNSET
    partial_json: str | UnsetType = UNSET


class _Reply(msgspec.Struct, kw_only=True):
    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[_Said] | None
    stop_reason: str | UnsetType = UNSET
    usage: _Usage


class _StopReason(msgspec.Struct):
    stop_reason: str


class _Event(msgspec.Struct, kw_only=True):
    type: str
    message: _Reply | UnsetType = UNSET
    index: int | UnsetType = UNSET
    content_block: _Said | UnsetType = UNSET
    delta: _Said | _StopReason | UnsetType = UNSET
    usage: _Usage | UnsetType = UNSET


def understand(body: bytes) -> Call | Refusal:
    """Read a request of `/v1/messages`; a model, a cap and messages are required."""
    request = decode(body, _Request, missing="EOF")
    if isinstance(request, Refusal):
        return request
    if not request.model:
        return Refusal(400, "model is required", early=True)
    if request.max_tokens <= 0:
        return Refusal(400, "max_tokens is required and must be positive", early=True)
    if not request.messages:
        return Refusal(400, "messages is required", early=True)
    system = "".join(block.text or "" for block in _blocks(request.system))
    turns = [Turn("system", system)] if system else []
    for message in request.messages:
        turns += _turns(message)
    return Call(
        model=request.model,
        # A system text alone is no conversation: Ollama then only loads the model.
        turns=tuple(turns),
        tools=tuple(tool(_function(each)) for each in request.tools),
        stream=request.stream,
        max_output=request.max_tokens,
        stop=tuple(request.stop_sequences),
        think=request.thinking.type == "enabled" if request.thinking else None,
        input_guess=_guess(request),
    )


@define
class _Voice:
    """A reply of `/v1/messages`: blocks of thinking, text and tool use, one after another."""

    call: Call
    id: str = field(factory=lambda: f"msg_{token_hex(12)}")
    index: int = -1
    block: str = ""
    """Kind of the open block; empty when none is."""
    is_started: bool = False
    has_tools: bool = False

    def line(self, line: Line, now: datetime) -> list[bytes]:
        """Word a step; every event is a chunk."""
        del now  # this dialect carries no time
        events = [] if self.is_started else [self._start(line)]
        self.is_started = True
        if line.thinking:
            events += self._delta("thinking", _Said(type="thinking_delta", thinking=line.thinking))
        if line.content:
            events += self._delta("text", _Said(type="text_delta", text=line.content))
        for call in line.tool_calls:
            events += self._tool_use(call)
        if line.reason is not None:
            events += [*self._close(), *self._stop(line)]
        return [_frame(event) for event in events]

    def failure(self, text: str, now: datetime) -> list[bytes]:
        """Swallow the error as Ollama does: the stream just ends."""
        del text, now
        return []

    def single(self, whole: Line, now: datetime) -> bytes:
        """Word the whole answer with its usage."""
        del now
        self.has_tools = bool(whole.tool_calls)
        said = [_Said(type="thinking", thinking=whole.thinking)] if whole.thinking else []
        said += [_Said(type="text", text=whole.content)] if whole.content else []
        said += [_tool_use(call, call.arguments) for call in whole.tool_calls]
        reason = self._stop_reason(whole.reason)
        return encode(
            _Reply(
                id=self.id,
                model=self.call.model,
                content=said or None,
                stop_reason=reason or UNSET,
                usage=_usage(whole.usage),
            )
        )

    def _start(self, line: Line) -> _Event:
        usage = _usage(line.usage)
        # Only an answer of one single step knows its input this early.
        if line.usage is None:
            usage.input_tokens = self.call.input_guess
        usage.output_tokens = 0
        reply = _Reply(id=self.id, model=self.call.model, content=[], usage=usage)
        return _Event(type="message_start", message=reply)

    def _delta(self, kind: str, delta: _Said) -> list[_Event]:
        events = [] if self.block == kind else [*self._close(), self._open(kind)]
        return [*events, _Event(type="content_block_delta", index=self.index, delta=delta)]

    def _open(self, kind: str) -> _Event:
        self.block = kind
        self.index += 1
        empty = _Said(type="text", text="") if kind == "text" else _Said(type=kind, thinking="")
        return _Event(type="content_block_start", index=self.index, content_block=empty)

    def _close(self) -> list[_Event]:
        events = [_Event(type="content_block_stop", index=self.index)] if self.block else []
        self.block = ""
        return events

    def _tool_use(self, call: ToolCall) -> list[_Event]:
        events = self._close()
        self.has_tools = True
        self.index += 1
        start = _tool_use(call, "{}")
        delta = _Said(type="input_json_delta", partial_json=call.arguments)
        return [
            *events,
            _Event(type="content_block_start", index=self.index, content_block=start),
            _Event(type="content_block_delta", index=self.index, delta=delta),
            _Event(type="content_block_stop", index=self.index),
        ]

    def _stop(self, line: Line) -> list[_Event]:
        delta = _StopReason(self._stop_reason(line.reason))
        return [
            _Event(type="message_delta", delta=delta, usage=_usage(line.usage)),
            _Event(type="message_stop"),
        ]

    def _stop_reason(self, reason: str | None) -> str:
        if self.has_tools:
            return "tool_use"
        names = {None: "", "stop": "end_turn", "length": "max_tokens"}
        return names.get(reason, "stop_sequence")


def _blocks(content: str | list[_Block] | None) -> list[_Block]:
    if isinstance(content, list):
        return content
    return [_Block(type="text", text=content)] if content else []


def _turns(message: _Message) -> list[Turn]:
    blocks = _blocks(message.content)
    text = "".join(block.text or "" for block in blocks if block.type == "text")
    uses = [block for block in blocks if block.type == "tool_use"]
    results = [
        Turn("tool", " ".join(part.text or "" for part in _blocks(block.content)))
        for block in blocks
        if block.type == "tool_result"
    ]
    # Results answer calls of an earlier turn: Ollama puts them before this turn's own text.
    calls = encode([_Block(name=use.name, input=use.input) for use in uses]).decode()
    said = [Turn(message.role.lower(), text, calls if uses else "")] if text or uses else []
    return results + said


def _function(given: _Tool) -> Function:
    return Function(
        given.name,
        given.description or UNSET,
        msgspec.json.decode(given.input_schema, type=dict[str, object]),
    )


def _guess(request: _Request) -> int:
    length = sum(map(_length, _blocks(request.system)))
    for message in request.messages:
        length += len(message.role) + sum(map(_length, _blocks(message.content)))
    for each in request.tools:
        length += len(each.name + each.description) + len(bytes(each.input_schema))
    # Never nothing, however short the request.
    return max(1, length // _BYTES_PER_TOKEN)


def _length(block: _Block) -> int:
    length = len((block.text or "").encode()) + len((block.thinking or "").encode())
    return length + (len(encode(block)) if block.type.startswith("tool_") else 0)


def _usage(usage: Usage | None) -> _Usage:
    if usage is None:
        return _Usage(0, UNSET, 0)
    fresh = usage.input_tokens - usage.cached_tokens
    return _Usage(fresh, usage.cached_tokens, usage.output_tokens)


def _tool_use(call: ToolCall, arguments: str) -> _Said:
    raw = msgspec.Raw(arguments.encode())
    return _Said(type="tool_use", id=call.id, name=call.name, input=raw)


def _frame(event: _Event) -> bytes:
    return b"event: " + event.type.encode() + b"\ndata: " + encode(event) + b"\n\n"


MESSAGES: Final = Dialect(
    path="/v1/messages",
    understand=understand,
    voice=lambda call, _body: _Voice(call),
    wording=errors.ANTHROPIC,
    stream_headers=((b"cache-control", b"no-cache"), (b"connection", b"keep-alive")),
)

"""`/v1/responses`: named and numbered server-sent events, or one object."""

from datetime import datetime
from secrets import randbelow
from typing import Final

import msgspec
from attrs import define, evolve, field
from msgspec import UNSET

from authz.demo import errors
from authz.demo import responses_shapes as shapes
from authz.demo.gojson import encode, encode_map, number
from authz.demo.requests import Function, decode, texts, tool
from authz.demo.responses_shapes import Event, Output, Part, Response
from authz.demo.types import Call, Line, Refusal, ToolCall, Turn, Usage
from authz.demo.voice import Dialect

_IDS: Final = 999_999
_CODE: Final = "invalid_request_error"


def understand(body: bytes) -> Call | Refusal:
    """Read a request of `/v1/responses`; an empty input only loads the model."""
    request = decode(body, shapes.Request, missing="missing request body")
    if isinstance(request, Refusal):
        return _refusal(request)
    if not request.model:
        return Refusal(400, "model is required", early=True, code=_CODE)
    wanted = request.text.format if request.text else None
    turns = _turns(request)
    # Instructions alone are no conversation: then the model is only loaded.
    system = [Turn("system", request.instructions)] if request.instructions and turns else []
    effort = request.reasoning.effort if request.reasoning else ""
    return Call(
        model=request.model,
        turns=tuple(system + turns),
        tools=tuple(tool(_function(each)) for each in request.tools or ()),
        stream=request.stream is True,
        max_output=request.max_output_tokens,
        think=effort != "none" if effort else None,
        format=wanted.type if wanted and wanted.type != "text" else "",
        schema=msgspec.json.decode(wanted.schema) if wanted and bytes(wanted.schema) else None,
    )


@define
class _Voice:
    """A reply of `/v1/responses`: items of reasoning, text and calls, each opened and closed."""

    call: Call
    request: shapes.Request
    id: str = field(factory=lambda: f"resp_{randbelow(_IDS)}")
    item_id: str = ""
    """The open item; empty when none is."""
    thought: str = ""
    said: str = ""
    done: list[Output] = field(factory=list)
    sequence: int = 0

    def line(self, line: Line, now: datetime) -> list[bytes]:
        """Word a step; every event is a chunk."""
        frames = [] if self.sequence else self._start(now)
        if line.thinking:
            frames += self._think(line.thinking)
        for index, call in enumerate(line.tool_calls):
            frames += self._close() + self._tool_call(index, call)
        if line.content:
            frames += self._say(line.content)
        if line.reason is not None:
            frames += self._close()
            whole = self._response(now, status="completed", output=self.done or None)
            whole.usage = _usage(line.usage)
            frames.append(self._frame(Event(type="response.completed", response=whole)))
        return frames

    def failure(self, text: str, now: datetime) -> list[bytes]:
        """Swallow the error as Ollama does: the stream just ends."""
        del text, now
        return []

    def single(self, whole: Line, now: datetime) -> bytes:
        """Word the whole answer with its usage; a call stands in place of the text."""
        output = [_reasoning(f"rs_{self.id}", whole.thinking)] if whole.thinking else []
        calls = [_function_call(f"fc_{self.id}_{index}", call) for index, call in enumerate(whole.tool_calls)]
        output += calls or [_message(f"msg_{randbelow(_IDS)}", whole.content)]
        response = self._response(now, status="completed", output=output)
        response.usage = _usage(whole.usage)
        # A whole reply leaves out what the request did not say; events say null.
        if response.reasoning:
            response.reasoning.effort = response.reasoning.effort or UNSET
            response.reasoning.summary = response.reasoning.summary or UNSET
        return encode(response)

    def _start(self, now: datetime) -> list[bytes]:
        return [
            self._frame(Event(type=name, response=self._response(now, status="in_progress")))
            for name in ("response.created", "response.in_progress")
        ]

    def _think(self, text: str) -> list[bytes]:
        frames = []
        if not self.item_id:
            self.item_id = f"rs_{randbelow(_IDS)}"
            item = Output(id=self.item_id, type="reasoning", summary=[])
            frames.append(self._item("added", item))
        self.thought += text
        return [*frames, self._summary(Event(type="delta", delta=text))]

    def _say(self, text: str) -> list[bytes]:
        frames = self._close() if self.thought else []
        if not self.item_id:
            self.item_id = f"msg_{randbelow(_IDS)}"
            opened = _message(self.item_id, None)
            frames += [self._item("added", opened), self._part("added", "")]
        self.said += text
        return [*frames, self._text(Event(type="delta", delta=text))]

    def _tool_call(self, index: int, call: ToolCall) -> list[bytes]:
        done = _function_call(f"fc_{randbelow(_IDS)}_{index}", call)
        opened = msgspec.structs.replace(done, status="in_progress", arguments="")
        at, name = len(self.done), "response.function_call_arguments"
        delta = Event(type=f"{name}.delta", output_index=at, delta=call.arguments)
        whole = Event(type=f"{name}.done", output_index=at, arguments=call.arguments)
        delta.item_id = whole.item_id = done.id
        frames = [self._item("added", opened), self._frame(delta), self._frame(whole)]
        frames.append(self._item("done", done))
        self.done.append(done)
        return frames

    def _close(self) -> list[bytes]:
        if self.thought:
            item = _reasoning(self.item_id, self.thought)
            frames = [self._summary(Event(type="done", text=self.thought))]
        elif self.said:
            item = _message(self.item_id, self.said)
            frames = [self._text(Event(type="done", text=self.said)), self._part("done", self.said)]
        else:
            return []
        frames.append(self._item("done", item))
        self.done.append(item)
        self.item_id = self.thought = self.said = ""
        return frames

    def _item(self, step: str, item: Output) -> bytes:
        at = len(self.done)
        return self._frame(Event(type=f"response.output_item.{step}", item=item, output_index=at))

    def _summary(self, event: Event) -> bytes:
        event.type = f"response.reasoning_summary_text.{event.type}"
        event.summary_index = 0
        return self._placed(event)

    def _text(self, event: Event) -> bytes:
        event.type = f"response.output_text.{event.type}"
        event.content_index, event.logprobs = 0, []
        return self._placed(event)

    def _part(self, step: str, text: str) -> bytes:
        part = Part("output_text", text)
        return self._placed(Event(type=f"response.content_part.{step}", content_index=0, part=part))

    def _placed(self, event: Event) -> bytes:
        event.item_id, event.output_index = self.item_id, len(self.done)
        return self._frame(event)

    def _frame(self, event: Event) -> bytes:
        event.sequence_number = self.sequence
        self.sequence += 1
        return b"event: " + event.type.encode() + b"\ndata: " + encode_map(event) + b"\n\n"

    def _response(self, now: datetime, *, status: str, output: list[Output] | None = None) -> Response:
        asked = self.request
        second = int(now.timestamp())
        is_done = status == "completed"
        wanted = asked.text.format if asked.text else None
        return Response(
            id=self.id,
            created_at=second,
            completed_at=second if is_done else None,
            status=status,
            model=self.call.model,
            instructions=asked.instructions or None,
            output=output if is_done else [],
            tools=msgspec.Raw(encode(asked.tools or [])),
            truncation=asked.truncation or "disabled",
            text=shapes.Text(wanted or shapes.TextFormat("text")),
            top_p=number(1.0 if asked.top_p is None else asked.top_p),
            temperature=number(1.0 if asked.temperature is None else asked.temperature),
            reasoning=_echo(asked.reasoning),
            usage=None,
            max_output_tokens=asked.max_output_tokens,
        )


def _refusal(refusal: Refusal) -> Refusal:
    if refusal.text == "missing request body":
        return evolve(refusal, code=_CODE)
    cut = "unexpected end of JSON input"
    text = cut if refusal.text == "unexpected EOF" else refusal.text
    return evolve(refusal, text=f"invalid Responses request: {text}", code=_CODE)


def _turns(request: shapes.Request) -> list[Turn]:
    if isinstance(request.input, str):
        return [Turn("user", request.input)] if request.input else []
    return [turn for turn in map(_turn, request.input) if turn]


def _turn(item: shapes.Item) -> Turn | None:
    if item.type == "function_call":
        return Turn("assistant", "", f'[{{"name":"{item.name}","arguments":{item.arguments}}}]')
    if item.type == "function_call_output":
        return Turn("tool", "".join(texts(item.output)))
    return Turn(item.role, "".join(texts(item.content))) if item.type == "message" else None


def _function(given: shapes.Tool) -> Function:
    return Function(given.name or "", given.description or UNSET, given.parameters)


def _echo(asked: shapes.Effort | None) -> shapes.Reasoning | None:
    if asked is None or not (asked.effort or asked.summary):
        return None
    return shapes.Reasoning(asked.effort or None, asked.summary or None)


def _usage(usage: Usage | None) -> shapes.Usage:
    given, made, cached = (
        (usage.input_tokens, usage.output_tokens, usage.cached_tokens) if usage else (0, 0, 0)
    )
    details = shapes.InputDetails(cached)
    return shapes.Usage(given, made, given + made, details, shapes.OutputDetails())


def _reasoning(item_id: str, text: str) -> Output:
    summary = [shapes.Summary("summary_text", text)]
    return Output(id=item_id, type="reasoning", summary=summary, encrypted_content=text)


def _message(item_id: str, text: str | None) -> Output:
    is_done = text is not None
    return Output(
        id=item_id,
        type="message",
        status="completed" if is_done else "in_progress",
        role="assistant",
        content=[Part("output_text", text)] if text is not None else [],
    )


def _function_call(item_id: str, call: ToolCall) -> Output:
    return Output(
        id=item_id,
        type="function_call",
        status="completed",
        call_id=call.id,
        name=call.name,
        arguments=call.arguments,
    )


RESPONSES: Final = Dialect(
    path="/v1/responses",
    understand=understand,
    voice=lambda call, body: _Voice(call, msgspec.json.decode(body, type=shapes.Request)),
    wording=errors.OPENAI,
    stream_headers=((b"cache-control", b"no-cache"), (b"connection", b"keep-alive")),
)

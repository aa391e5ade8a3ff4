"""The interface that writes a route's answers, and the errors of all dialects."""

from abc import ABC, abstractmethod
from secrets import token_hex
from typing import ClassVar, Final

import msgspec
from attrs import define, field, frozen

from authz.stack.demo.call import Call, Refusal

Shape = dict[str, object]

_ERROR_TYPES: Final = {400: "invalid_request_error", 404: "not_found_error"}


@frozen
class Answer:
    """A whole answer, its tokens, and whether the wanted length cut it."""

    text: str
    input_tokens: int
    output_tokens: int
    is_cut: bool


@define
class Voice(ABC):
    """One reply in the words of its route."""

    call: Call
    now: str
    """RFC 3339."""
    now_s: int
    id: str = field(factory=lambda: token_hex(8))
    media_type: ClassVar[str] = "text/event-stream"
    """Of a stream."""

    def begin(self) -> bytes:
        """Write what comes before the first word of a stream."""
        return b""

    @abstractmethod
    def word(self, text: str) -> bytes:
        """Write one word of a stream."""

    @abstractmethod
    def end(self, answer: Answer) -> bytes:
        """Write the end of a stream."""

    @abstractmethod
    def whole(self, answer: Answer) -> Shape:
        """Shape an answer that is no stream."""


def event(shape: Shape, *, is_named: bool = False) -> bytes:
    """Write a server-sent event; a named one repeats its type."""
    name = f"event: {shape['type']}\n".encode() if is_named else b""
    return name + b"data: " + msgspec.json.encode(shape) + b"\n\n"


def error(path: str, refusal: Refusal) -> Shape:
    """Shape an error in the dialect of its path."""
    sentence, kind = str(refusal), _ERROR_TYPES.get(refusal.status, "api_error")
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": kind, "message": sentence}}
    if path.startswith("/v1/"):
        return {"error": {"message": sentence, "type": kind, "param": None, "code": None}}
    return {"error": sentence}

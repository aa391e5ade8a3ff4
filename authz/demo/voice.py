"""What a dialect must be able to say: the one interface between the answer and its wording."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from attrs import frozen

from authz.demo.errors import Wording
from authz.demo.types import Call, Line, Model, Refusal


class Voice(Protocol):
    """One reply of a dialect; each returned item is one HTTP chunk, as Ollama flushes them."""

    def line(self, line: Line, now: datetime) -> list[bytes]:
        """Word one step of a stream."""

    def failure(self, text: str, now: datetime) -> list[bytes]:
        """Word a failure after the first chunk."""

    def single(self, whole: Line, now: datetime) -> bytes:
        """Word the whole answer at once."""


@frozen
class Dialect:
    """How one route reads requests and words replies."""

    path: str
    understand: Callable[[bytes], Call | Refusal]
    voice: Callable[[Call, bytes], Voice]
    """Makes the voice of one reply, from the call and its body (some replies echo it)."""
    wording: Wording
    stream_type: str = "text/event-stream"
    stream_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers of every reply to a request that wants a stream."""
    loads_whole: bool = False
    """A load is answered with one object even when a stream is asked for."""


def missing_model(model: str) -> Refusal:
    """Word the refusal of a model that is not there."""
    return Refusal(404, f"model '{model}' not found")


def unable(call: Call, model: Model, *, route: str) -> Refusal | None:
    """Refuse what the model cannot do, in the order in which Ollama looks."""
    if call.think and not model.can("thinking") and route != "/v1/messages":
        return Refusal(400, f'"{call.model}" does not support thinking')
    if not model.can("completion"):
        kind = "chat" if call.chat else "generate"
        return Refusal(400, f'"{call.model}" does not support {kind}')
    if call.tools and not model.can("tools"):
        return Refusal(400, f"{model.name}:latest does not support tools")
    if call.suffix and not model.can("insert"):
        return Refusal(400, f"{model.name}:latest does not support insert")
    return None

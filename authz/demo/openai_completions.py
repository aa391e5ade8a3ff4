"""`/v1/completions`: server-sent events, or one object."""

from datetime import datetime
from secrets import randbelow
from typing import Final

import msgspec
from attrs import define, evolve, field
from msgspec import UNSET, UnsetType

from authz.demo import openai
from authz.demo.gojson import encode
from authz.demo.openai import DONE, FINGERPRINT, IDS, UsageShape, frame, usage_shape
from authz.demo.requests import decode
from authz.demo.types import Call, Line, Refusal, Turn
from authz.demo.voice import missing_model


class _CompletionRequest(openai.Request):
    prompt: str = ""
    suffix: str = ""


class _TextChoice(msgspec.Struct, kw_only=True):
    text: str
    index: int = 0
    finish_reason: str | None = None


class _Body(msgspec.Struct, kw_only=True):
    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str = FINGERPRINT
    choices: list[_TextChoice]
    usage: UsageShape


class _TextChunk(msgspec.Struct, kw_only=True):
    """A chunk of `/v1/completions`: Ollama names the model after the choices here."""

    id: str
    object: str
    created: int
    choices: list[_TextChoice]
    model: str
    system_fingerprint: str = FINGERPRINT
    usage: UsageShape | UnsetType = UNSET


def understand_completion(body: bytes) -> Call | Refusal:
    """Read a request of `/v1/completions`; without a prompt it only loads the model."""
    request = decode(body, _CompletionRequest, missing="EOF")
    if isinstance(request, Refusal):
        return request
    if not request.model:
        return missing_model("")
    return evolve(
        openai.call(request),
        chat=False,
        turns=(Turn("user", request.prompt),) if request.prompt else (),
        suffix=request.suffix,
    )


@define
class _Completion:
    """A reply of `/v1/completions`: asked for usage, every chunk carries one, zero but the last."""

    call: Call
    id: str = field(factory=lambda: f"cmpl-{randbelow(IDS)}")

    def line(self, line: Line, now: datetime) -> list[bytes]:
        """Word a step; a last step ends the stream in the same chunk."""
        # This route ends in the last chunk's own choice; the chat route adds a chunk for it.
        choice = _TextChoice(text=line.content, finish_reason=line.reason)
        zero = UsageShape() if self.call.usage_asked else UNSET
        frames = [self._chunk([choice], now, usage=zero)]
        if line.reason is not None:
            if self.call.usage_asked:
                frames.append(self._chunk([], now, usage=usage_shape(line.usage)))
            frames.append(DONE)
        return [b"".join(frames)]

    def failure(self, text: str, now: datetime) -> list[bytes]:
        """Swallow the error as Ollama does: an empty chunk of no model, and no [DONE]."""
        del text
        zero = UsageShape() if self.call.usage_asked else UNSET
        return [self._chunk([_TextChoice(text="")], now, usage=zero, model="")]

    def single(self, whole: Line, now: datetime) -> bytes:
        """Word the whole answer with its usage."""
        return encode(
            _Body(
                id=self.id,
                object="text_completion",
                created=int(now.timestamp()),
                model=self.call.model,
                choices=[_TextChoice(text=whole.content, finish_reason=whole.reason)],
                usage=usage_shape(whole.usage),
            )
        )

    def _chunk(
        self,
        choices: list[_TextChoice],
        now: datetime,
        *,
        usage: UsageShape | UnsetType,
        model: str | None = None,
    ) -> bytes:
        body = _TextChunk(
            id=self.id,
            object="text_completion",
            created=int(now.timestamp()),
            choices=choices,
            model=self.call.model if model is None else model,
            usage=usage,
        )
        return frame(body)


COMPLETIONS: Final = openai.dialect("/v1/completions", understand_completion, _Completion)

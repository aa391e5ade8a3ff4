"""`/v1/chat/completions` and `/v1/completions`: server-sent events, or one object."""

from typing import ClassVar, Final

from authz.stack.demo.voice import Answer, Shape, Voice, event

_DONE: Final = b"data: [DONE]\n\n"
_NOTHING: Final = Answer("", 0, 0, is_cut=False)


class _Completion(Voice):
    """A reply of the older route; asked for usage, every chunk carries one, zero but the last."""

    prefix: ClassVar[str] = "cmpl"
    kind: ClassVar[str] = "text_completion"
    chunk_kind: ClassVar[str] = "text_completion"

    def word(self, text: str) -> bytes:
        return event(self._chunk(self._choice(text)))

    def end(self, answer: Answer) -> bytes:
        last = event(self._chunk(self._choice("", _reason(answer))))
        if self.call.is_usage_asked:
            last += event(self._chunk() | {"usage": _tokens(answer)})
        return last + _DONE

    def whole(self, answer: Answer) -> Shape:
        choice = {"text": answer.text, "index": 0, "finish_reason": _reason(answer)}
        return self._body(self.kind, choice) | {"usage": _tokens(answer)}

    def _choice(self, text: str, reason: str | None = None) -> Shape:
        return {"text": text, "index": 0, "finish_reason": reason}

    def _chunk(self, *choices: Shape) -> Shape:
        usage = {"usage": _tokens(_NOTHING)} if self.call.is_usage_asked else {}
        return self._body(self.chunk_kind, *choices) | usage

    def _body(self, kind: str, *choices: Shape) -> Shape:
        return {
            "id": f"{self.prefix}-{self.id}",
            "object": kind,
            "created": self.now_s,
            "model": self.call.model,
            "system_fingerprint": "fp_ollama",
            "choices": choices,
        }


class _Chat(_Completion):
    """A reply of the chat route: a usage that was asked for comes in the last chunk alone."""

    prefix: ClassVar[str] = "chatcmpl"
    kind: ClassVar[str] = "chat.completion"
    chunk_kind: ClassVar[str] = "chat.completion.chunk"

    def whole(self, answer: Answer) -> Shape:
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": _reason(answer)}
        return self._body(self.kind, choice) | {"usage": _tokens(answer)}

    def _choice(self, text: str, reason: str | None = None) -> Shape:
        return {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": reason}

    def _chunk(self, *choices: Shape) -> Shape:
        return self._body(self.chunk_kind, *choices)


def _reason(answer: Answer) -> str:
    return "length" if answer.is_cut else "stop"


def _tokens(answer: Answer) -> Shape:
    counts = {"prompt_tokens": answer.input_tokens, "completion_tokens": answer.output_tokens}
    return {**counts, "total_tokens": sum(counts.values())}


ROUTES: Final[dict[str, type[Voice]]] = {"/v1/chat/completions": _Chat, "/v1/completions": _Completion}

"""`/api/chat` and `/api/generate`: a JSON object a line, or one."""

from typing import ClassVar, Final

import msgspec

from authz.stack.demo.voice import Shape, Usage, Voice

_LOAD_NS: Final = 1_000_000
_TOKEN_NS: Final = 20_000_000


class _Generate(Voice):
    """A reply of `/api/generate`."""

    media_type: ClassVar[str] = "application/x-ndjson"

    def word(self, text: str) -> bytes:
        return msgspec.json.encode(self._shape(text) | {"done": False}) + b"\n"

    def end(self, text: str, usage: Usage) -> bytes:
        del text
        return msgspec.json.encode(self.whole("", usage)) + b"\n"

    def whole(self, text: str, usage: Usage) -> Shape:
        shape = self._shape(text) | {"done": True}
        if not self.call.texts:
            # Nothing was asked: Ollama only loads the model.
            return shape | {"done_reason": "load"}
        eval_ns = _TOKEN_NS * usage.output_tokens
        return shape | {
            "done_reason": "length" if usage.is_cut else "stop",
            "total_duration": _LOAD_NS + eval_ns,
            "load_duration": _LOAD_NS,
            "prompt_eval_count": usage.input_tokens,
            "prompt_eval_duration": _TOKEN_NS,
            "eval_count": usage.output_tokens,
            "eval_duration": eval_ns,
        }

    def _shape(self, text: str) -> Shape:
        return {"model": self.call.model, "created_at": self.now, **self._content(text)}

    def _content(self, text: str) -> Shape:
        return {"response": text}


class _Chat(_Generate):
    """A reply of `/api/chat`: the same around a message."""

    def _content(self, text: str) -> Shape:
        return {"message": {"role": "assistant", "content": text}}


ROUTES: Final[dict[str, type[Voice]]] = {"/api/chat": _Chat, "/api/generate": _Generate}

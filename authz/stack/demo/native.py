"""`/api/chat` and `/api/generate`: a JSON object a line, or one."""

from typing import ClassVar, Final

import msgspec
from attrs import evolve

from authz.stack.demo.voice import Answer, Shape, Voice

_LOAD_NS: Final = 1_000_000
_TOKEN_NS: Final = 20_000_000


class _Generate(Voice):
    """A reply of `/api/generate`."""

    media_type: ClassVar[str] = "application/x-ndjson"

    def word(self, text: str) -> bytes:
        return msgspec.json.encode(self._shape(text) | {"done": False}) + b"\n"

    def end(self, answer: Answer) -> bytes:
        return msgspec.json.encode(self.whole(evolve(answer, text=""))) + b"\n"

    def whole(self, answer: Answer) -> Shape:
        shape = self._shape(answer.text) | {"done": True}
        if not self.call.texts:
            # Nothing was asked: Ollama only loads the model.
            return shape | {"done_reason": "load"}
        eval_ns = _TOKEN_NS * answer.output_tokens
        return shape | {
            "done_reason": "length" if answer.is_cut else "stop",
            "total_duration": _LOAD_NS + eval_ns,
            "load_duration": _LOAD_NS,
            "prompt_eval_count": answer.input_tokens,
            "prompt_eval_duration": _TOKEN_NS,
            "eval_count": answer.output_tokens,
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

"""`/v1/messages`: named server-sent events, or one object."""

from typing import Final

from authz.stack.demo.voice import Shape, Usage, Voice, event


class _Message(Voice):
    """A reply of one block of text."""

    def begin(self) -> bytes:
        usage = {"input_tokens": self.call.input_tokens, "output_tokens": 0}
        start = {**self._body(), "content": [], "stop_reason": None, "usage": usage}
        block = {"type": "text", "text": ""}
        return _event("message_start", message=start) + _event(
            "content_block_start", index=0, content_block=block
        )

    def word(self, text: str) -> bytes:
        return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})

    def end(self, text: str, usage: Usage) -> bytes:
        del text
        delta = {"stop_reason": _reason(usage), "stop_sequence": None}
        return (
            _event("content_block_stop", index=0)
            + _event("message_delta", delta=delta, usage=_tokens(usage))
            + _event("message_stop")
        )

    def whole(self, text: str, usage: Usage) -> Shape:
        return self._body() | {
            "content": [{"type": "text", "text": text}],
            "stop_reason": _reason(usage),
            "stop_sequence": None,
            "usage": _tokens(usage),
        }

    def _body(self) -> Shape:
        head = {"id": f"msg_{self.id}", "type": "message", "role": "assistant"}
        return {**head, "model": self.call.model}


def _event(kind: str, **fields: object) -> bytes:
    return event({"type": kind, **fields}, is_named=True)


def _reason(usage: Usage) -> str:
    return "max_tokens" if usage.is_cut else "end_turn"


def _tokens(usage: Usage) -> Shape:
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


ROUTES: Final[dict[str, type[Voice]]] = {"/v1/messages": _Message}

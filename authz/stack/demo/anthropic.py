"""`/v1/messages`: named server-sent events, or one object."""

from typing import Final

from authz.stack.demo.voice import Answer, Shape, Voice, event


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

    def end(self, answer: Answer) -> bytes:
        return (
            _event("content_block_stop", index=0)
            + _event("message_delta", delta=_stop(answer), usage=_tokens(answer))
            + _event("message_stop")
        )

    def whole(self, answer: Answer) -> Shape:
        content = [{"type": "text", "text": answer.text}]
        return {**self._body(), "content": content, **_stop(answer), "usage": _tokens(answer)}

    def _body(self) -> Shape:
        head = {"id": f"msg_{self.id}", "type": "message", "role": "assistant"}
        return {**head, "model": self.call.model}


def _event(kind: str, **fields: object) -> bytes:
    return event({"type": kind, **fields}, is_named=True)


def _stop(answer: Answer) -> Shape:
    return {"stop_reason": "max_tokens" if answer.is_cut else "end_turn", "stop_sequence": None}


def _tokens(answer: Answer) -> Shape:
    return {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens}


ROUTES: Final[dict[str, type[Voice]]] = {"/v1/messages": _Message}

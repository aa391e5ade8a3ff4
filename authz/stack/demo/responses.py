"""`/v1/responses`: named and numbered server-sent events, or one object."""

from typing import Final

from attrs import define

from authz.stack.demo.voice import Answer, Shape, Voice, event

_AT: Final[Shape] = {"output_index": 0, "content_index": 0}


@define
class _Response(Voice):
    """A reply of one message with one part of text."""

    sequence: int = 0

    def begin(self) -> bytes:
        item = {**self._message("in_progress"), "content": []}
        body = self._body("in_progress")
        return (
            self._event("response.created", response=body)
            + self._event("response.in_progress", response=body)
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._event("response.content_part.added", **self._place, part=_part(""))
        )

    def word(self, text: str) -> bytes:
        return self._event("response.output_text.delta", **self._place, delta=text, logprobs=[])

    def end(self, answer: Answer) -> bytes:
        text = answer.text
        item = self._message("completed", text)
        return (
            self._event("response.output_text.done", **self._place, text=text, logprobs=[])
            + self._event("response.content_part.done", **self._place, part=_part(text))
            + self._event("response.output_item.done", output_index=0, item=item)
            + self._event("response.completed", response=self.whole(answer))
        )

    def whole(self, answer: Answer) -> Shape:
        return self._body("completed") | {
            "completed_at": self.now_s,
            "output": [self._message("completed", answer.text)],
            "usage": {
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "total_tokens": answer.input_tokens + answer.output_tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        }

    @property
    def _place(self) -> Shape:
        return {"item_id": f"msg_{self.id}", **_AT}

    def _message(self, status: str, text: str = "") -> Shape:
        return {
            "id": f"msg_{self.id}",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [_part(text)],
        }

    def _event(self, kind: str, **fields: object) -> bytes:
        shape = {"type": kind, "sequence_number": self.sequence, **fields}
        self.sequence += 1
        return event(shape, is_named=True)

    def _body(self, status: str) -> Shape:
        return {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": self.now_s,
            "status": status,
            "model": self.call.model,
            "output": [],
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "max_output_tokens": self.call.max_output,
        }


def _part(text: str) -> Shape:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


ROUTES: Final[dict[str, type[Voice]]] = {"/v1/responses": _Response}

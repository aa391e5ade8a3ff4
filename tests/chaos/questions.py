"""The questions of a chaos run's clients, and the part of the answer that each client saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from random import Random
from typing import Any
from urllib.parse import quote
from uuid import UUID

from attrs import define, field, frozen

CAP_TOKENS = 48
TOKENS_PER_FRAME = 4
_LEAST_PROMPT_BYTES = 240
PACE_S = 0.01
"""Before each word: a single answer that is cut is charged by the model's rate."""
_PACE = f"delay_ms={1000 * PACE_S:.0f}"


class Manner(StrEnum):
    """The behaviour of a client."""

    STREAM = "streams"
    SINGLE = "single answers"
    HANG_UP = "hang-ups in a stream"
    ABANDON = "single answers abandoned"
    EMBED = "embeddings"
    UNKNOWN_MODEL = "unknown models"
    BAD_KEY = "bad keys"


OFTEN = {
    Manner.STREAM: 8,
    Manner.SINGLE: 4,
    Manner.HANG_UP: 4,
    Manner.ABANDON: 2,
    Manner.EMBED: 2,
    Manner.UNKNOWN_MODEL: 1,
}


class Content(StrEnum):
    """What the answers of a key consist of; of what is cut the key's own answers before teach the price."""

    TEXT = "text"
    GLUED = "several tokens a frame"
    THINKING = "thinking"
    CALLS = "tool calls"


GENERATIONS = (
    "/api/chat",
    "/api/generate",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
)
EMBEDDINGS = ("/api/embed", "/v1/embeddings", "/api/embeddings")
UNREPORTED = "/api/embeddings"
_CALL = json.dumps({"name": "note", "arguments": {"text": " ".join(f"word{number}" for number in range(12))}})
_FUNCTION = {"name": "note", "parameters": {"type": "object", "properties": {"text": {"type": "string"}}}}
TOOLS: dict[str, object] = {
    "/api/chat": {"type": "function", "function": _FUNCTION},
    "/v1/chat/completions": {"type": "function", "function": _FUNCTION},
    "/v1/responses": {"type": "function", **_FUNCTION},
    "/v1/messages": {"name": _FUNCTION["name"], "input_schema": _FUNCTION["parameters"]},
}
"""The one tool, in the dialect of each API that knows tools."""
_KNOBS = {
    Content.TEXT: "",
    Content.GLUED: f"pertoken={TOKENS_PER_FRAME}",
    Content.THINKING: "think=6",
    Content.CALLS: f"say={quote(f'<tool_call>{_CALL}</tool_call>')}",
}
_PROMPT_FIELDS = {
    "/api/generate": "prompt",
    "/v1/completions": "prompt",
    "/v1/responses": "input",
    "/api/embed": "input",
    "/v1/embeddings": "input",
    "/api/embeddings": "prompt",
}


@frozen
class Question:
    """One request; no two of a key have prompts of the same length, by which their records differ."""

    tag: str
    path: str
    manner: Manner
    prompt: str
    model: str
    content: Content = Content.TEXT
    leaves_after: int = 0
    """Tokens of a stream after which its client hangs up."""
    patience_s: float = 60.0
    cap_tokens: int = CAP_TOKENS

    @property
    def is_stream(self) -> bool:
        """Return whether the answer is to come in pieces."""
        return self.manner in {Manner.STREAM, Manner.HANG_UP}

    @property
    def tokens_per_frame(self) -> int:
        """Return how many tokens a frame has, but for the last, which may have fewer."""
        return TOKENS_PER_FRAME if self.content is Content.GLUED else 1

    @property
    def shape(self) -> tuple[str, str]:
        """Return what decides how many bytes a body has beside its prompt."""
        return self.path, self.content

    @property
    def body(self) -> bytes:
        """The request body in the dialect of its path."""
        body: dict[str, Any] = {"model": self.model}
        name = _PROMPT_FIELDS.get(self.path)
        body |= {name: self.prompt} if name else {"messages": [{"role": "user", "content": self.prompt}]}
        if self.path in GENERATIONS:
            body |= {"stream": self.is_stream, **_capped(self.path, self.cap_tokens)}
        if self.content is Content.CALLS and self.path in TOOLS:
            body["tools"] = [TOOLS[self.path]]
        return json.dumps(body).encode()


@define
class Asked:
    """The outcome of a question, as its client saw it."""

    key: UUID | None
    question: Question
    status: int = 0
    """0 if no answer came."""
    request_id: UUID | None = None
    delivered_tokens: int = 0
    is_whole: bool = False
    """Return whether the whole answer arrived."""
    retry_ms: int = field(default=0)
    fault: str = ""
    """What kept the answer from its client: the text of a refusal, or the error of the connection."""


@frozen
class Asker:
    """How a key asks: its models, and what its answers consist of."""

    models: Mapping[Manner, str]
    content: Content
    often: Mapping[Manner, int] = OFTEN
    longest_tokens: int = 40

    def choose(self, chance: Random, tag: str, number: int) -> Question:
        """Return the next question of a client that behaves in every way."""
        manner = chance.choices(list(self.often), weights=list(self.often.values()))[0]
        return self.question(chance, tag, number, manner)

    def question(self, chance: Random, tag: str, number: int, manner: Manner) -> Question:
        """Return a question of one manner."""
        tokens = chance.randint(3, self.longest_tokens)
        generations = tuple(TOOLS) if self.content is Content.CALLS else GENERATIONS
        return Question(
            tag=tag,
            path=chance.choice(EMBEDDINGS if manner is Manner.EMBED else generations),
            manner=manner,
            prompt=f"tokens={tokens} {_PACE} {_KNOBS[self.content]} tag={tag} ".ljust(
                _LEAST_PROMPT_BYTES + number, "x"
            ),
            model=self.models[manner],
            content=self.content,
            leaves_after=chance.randint(1, max(1, tokens - 1)) if manner is Manner.HANG_UP else 0,
            patience_s=chance.uniform(0.05, 0.4) if manner is Manner.ABANDON else 60.0,
            cap_tokens=max(CAP_TOKENS, self.longest_tokens),
        )


def is_token(path: str, line: str) -> bool:
    """Return whether a line of a stream carries a word of the answer."""
    text = line.removeprefix("data: ")
    return text.startswith("{") and bool(_WORDS[path](json.loads(text)))


def _capped(path: str, tokens: int) -> dict[str, object]:
    if path.startswith("/api/"):
        return {"options": {"num_predict": tokens}}
    return {"max_output_tokens" if path == "/v1/responses" else "max_tokens": tokens}


_WORDS: dict[str, Callable[[dict[str, Any]], object]] = {
    "/api/chat": lambda frame: frame.get("message", {}).get("content"),
    "/api/generate": lambda frame: frame.get("response"),
    "/v1/chat/completions": lambda frame: [c for c in frame.get("choices", ()) if c["delta"].get("content")],
    "/v1/completions": lambda frame: [choice for choice in frame.get("choices", ()) if choice["text"]],
    "/v1/responses": lambda frame: frame.get("type") == "response.output_text.delta",
    "/v1/messages": lambda frame: frame.get("type") == "content_block_delta",
}
"""The part of a frame that is there only if it carries a word."""

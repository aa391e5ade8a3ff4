"""What one demo answer is made of: every type here crosses a module and none knows a dialect."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from attrs import frozen

Clock = Callable[[], datetime]

CONTEXT_TOKENS: Final = 4096
"""What a loaded demo model evaluates at most; Ollama's own default."""


CHARSET_JSON: Final = "application/json; charset=utf-8"
"""The type that Ollama's router gives to JSON."""


@frozen
class Model:
    """A model of the demo: what it can do decides which requests it refuses."""

    name: str
    capabilities: tuple[str, ...]
    context_tokens: int = 32_768
    family: str = "demo"
    parameters: str = "0"

    def can(self, capability: str) -> bool:
        """Say whether the model has a capability of Ollama's vocabulary."""
        return capability in self.capabilities


@frozen
class Turn:
    """One message of a conversation, already plain text."""

    role: str
    text: str
    tool_calls: str = ""
    """The calls of an assistant turn as compact JSON: they cost prompt tokens."""


@frozen
class Tool:
    """A function the model may call: the words of `text` (its JSON) cost prompt tokens."""

    name: str
    text: str
    properties: dict[str, object]


@frozen
class Call:
    """A generation request of any dialect, understood."""

    model: str
    turns: tuple[Turn, ...] = ()
    tools: tuple[Tool, ...] = ()
    stream: bool = False
    usage_asked: bool = False
    raw_prompt: str | None = None
    """A prompt sent as it is, without a template (`/api/generate` only)."""
    suffix: str = ""
    chat: bool = True
    unload: bool = False
    max_output: int | None = None
    stop: tuple[str, ...] = ()
    think: bool | None = None
    format: str = ""
    schema: object = None
    top_logprobs: int | None = None
    input_guess: int = 0
    """Anthropic's first frame carries a guess of the input, four bytes to a token."""

    @property
    def is_load(self) -> bool:
        """Say whether nothing is asked: then the model is only loaded, or unloaded."""
        return not self.turns and self.raw_prompt is None


@frozen
class Refusal:
    """A request that gets an error before any token; `early` ones never reach the model lookup."""

    status: int
    text: str
    early: bool = False
    code: str | None = None


@frozen
class Usage:
    """The tokens and times of a whole answer; `cached` is a part of `input_tokens`."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int
    total_ns: int
    eval_ns: int


@frozen
class ToolCall:
    """A tool call of the model, with `arguments` as compact JSON."""

    id: str
    name: str
    arguments: str


@frozen
class Logprob:
    """One token with its made-up probability and its `top` alternatives."""

    token: str
    top: tuple[str, ...] = ()


@frozen
class Line:
    """One step of an answer, as the native API would send it; `reason` marks the last."""

    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    reason: str | None = None
    usage: Usage | None = None
    context: tuple[int, ...] | None = None


@frozen
class Failure:
    """The end of an answer that broke; as the first step it is an error reply with `status`."""

    text: str
    status: int = 500

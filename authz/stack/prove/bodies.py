"""The smallest bodies that each metered route of a generation takes, and where its answer reports usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION: Final = "Say: ok"
LONG: Final = "Write the numbers from one to two hundred as words, each on a line of its own."
LONG_TOKENS: Final = 256
NO_MODEL: Final = "neuronetz-gateway-doctor-none"
"""A name that no backend has: where a path is open after all, nothing is changed or deleted by it."""


@frozen
class Generation:
    """A metered route: its body for a model and a cap, and the usage in its answer."""

    path: str
    body: Callable[[str, int], dict[str, Any]]
    usage: Callable[[Any], tuple[int, int]]


def _messages() -> list[dict[str, str]]:
    return [{"role": "user", "content": QUESTION}]


def _native(answer: Any) -> tuple[int, int]:
    return answer.get("prompt_eval_count", 0), answer.get("eval_count", 0)


def _openai(answer: Any) -> tuple[int, int]:
    usage = answer.get("usage", {})
    return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)


def _responses(answer: Any) -> tuple[int, int]:
    usage = answer.get("usage", {})
    return usage.get("input_tokens", 0), usage.get("output_tokens", 0)


def _anthropic(answer: Any) -> tuple[int, int]:
    usage = answer.get("usage", {})
    cached = (usage.get(f"cache_{name}_input_tokens") or 0 for name in ("read", "creation"))
    return usage.get("input_tokens", 0) + sum(cached), usage.get("output_tokens", 0)


GENERATIONS: Final = (
    Generation(
        "/api/chat",
        lambda model, cap: {
            "model": model,
            "messages": _messages(),
            "stream": False,
            "options": {"num_predict": cap},
        },
        _native,
    ),
    Generation(
        "/api/generate",
        lambda model, cap: {
            "model": model,
            "prompt": QUESTION,
            "stream": False,
            "options": {"num_predict": cap},
        },
        _native,
    ),
    Generation(
        "/v1/chat/completions",
        lambda model, cap: {"model": model, "messages": _messages(), "max_tokens": cap},
        _openai,
    ),
    Generation(
        "/v1/completions",
        lambda model, cap: {"model": model, "prompt": QUESTION, "max_tokens": cap},
        _openai,
    ),
    Generation(
        "/v1/responses",
        lambda model, cap: {"model": model, "input": QUESTION, "max_output_tokens": cap},
        _responses,
    ),
    Generation(
        "/v1/messages",
        lambda model, cap: {"model": model, "messages": _messages(), "max_tokens": cap},
        _anthropic,
    ),
)


def chat(model: str, **more: object) -> bytes:
    """Return a chat of one token, without a stream."""
    return msgspec.json.encode(GENERATIONS[0].body(model, 1) | more)


def long_chat(model: str) -> bytes:
    """Return a chat that streams for a while, unless it is ended."""
    asked = [{"role": "user", "content": LONG}]
    return chat(model, messages=asked, stream=True, options={"num_predict": LONG_TOKENS})

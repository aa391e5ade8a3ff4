"""How many tokens a request may use and probably will, from what the guard counted of its body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from authz.messages import Ask
    from authz.settings import Settings
    from authz.types import Identity

TOKENS_PER_MESSAGE: Final = 8
TOKENS_PER_TOOL: Final = 64
BYTES_PER_TOKEN: Final = 4
"""Of a usual prompt; a bound can't use it, since a byte-level tokenizer may need a token per byte."""


@frozen
class Tokens:
    """Bounds and estimates of one request; `wanted` is None without any cap, and 0 without output."""

    bound_in: int
    wanted: int | None
    estimated_input: int
    estimated_output: int


def expect(
    ask: Ask,
    identity: Identity,
    *,
    settings: Settings,
    context_length: int,
    template_tokens: int,
    has_output: bool,
) -> Tokens:
    """Bound the input by its bytes and the model's context, the output by every cap there is.

    Under a budget there always is one. Without any the answer stays what the backend makes it.
    """
    framing = TOKENS_PER_MESSAGE * ask.messages + TOKENS_PER_TOOL * ask.tools + template_tokens
    bound_in = context_length if ask.images else min(ask.prompt_bytes + framing, context_length)
    estimated_input = max(1, min(ask.prompt_bytes // BYTES_PER_TOKEN + framing, bound_in))
    if not has_output:
        return Tokens(bound_in, 0, estimated_input, 0)
    caps = (ask.max_output, identity.max_output, settings.max_output if identity.has_budget else None)
    wanted = min((cap for cap in caps if cap is not None), default=None)
    expected = settings.expected_output if wanted is None else wanted
    if ask.max_output is None:
        expected = min(expected, settings.expected_output)
    return Tokens(bound_in, wanted, estimated_input, expected)

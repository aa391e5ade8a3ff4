"""The figures by which tokens are counted that no backend reported, and the sums that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from attrs import frozen

if TYPE_CHECKING:
    from uuid import UUID

    from metering.rows import Owner


@frozen
class Ratios:
    """The figures by which tokens are counted that no backend reported; the defaults of a new key."""

    input_bytes_per_token: float = 4.0
    embedding_bytes_per_token: float = 4.0
    output_bytes_per_token: float = 4.0
    output_tokens_per_delta: float = 1.0
    tool_bytes_per_token: float = 4.0
    output_ms_per_token: float = 50.0
    prompt_ms_per_token: float = 0.5
    load_ms: float = 10_000.0

    @property
    def output_tokens_per_s(self) -> float:
        """Return the speed at which answers are produced."""
        return 1000 / self.output_ms_per_token


class Figures(NamedTuple):
    """Sums over answers that reported their usage: each figure is one sum over another.

    The fields are columns of learned_figures. scope is a key, or a tenant for all of its keys.
    """

    model: str
    scope_id: UUID
    tenant_id: UUID
    answers: int
    prompt_bytes: float = 0
    prompt_tokens: float = 0
    embedded_bytes: float = 0
    embedded_tokens: float = 0
    text_bytes: float = 0
    text_tokens: float = 0
    deltas: float = 0
    delta_tokens: float = 0
    tool_bytes: float = 0
    tool_tokens: float = 0
    eval_ms: float = 0
    eval_tokens: float = 0
    prompt_ms: float = 0
    evaluated_tokens: float = 0
    load_ms: float = 0
    loads: float = 0
    answer_tokens: float = 0
    generations: float = 0


@frozen
class ModelOwner:
    """A canonical model name, and the tenant and key that asked for it."""

    model: str
    owner: Owner

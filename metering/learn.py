"""The figures by which tokens are counted that no backend reported, learned from answers that did.

A figure is one sum over another, so that no single answer moves it far, and clipped to what is possible.
It is that of the key; as long as a key has shown little, that of its tenant; and only the model's own
properties (its speed, how it cuts its frames) are taken from other tenants, as the median of three or more.
So no tenant's traffic moves what another one pays.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

from attrs import define, field, frozen

from authz.models import canonical
from metering.cost import EMBEDDINGS
from metering.figures import Figures, ModelOwner, Ratios
from metering.rows import Owner, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from metering.rows import LedgerRow

DEFAULTS: Final = Ratios()

LEAST_PROMPT_BYTES: Final = 200
"""Of a shorter prompt most tokens are the template's."""

LOADED_MS: Final = 500
"""A model that was in memory is found faster than this."""


@frozen
class Figure:
    """A ratio of two sums: how it is computed, blended with what is known before, and clipped."""

    numerator: str
    denominator: str
    least: float
    most: float
    prior_weight: float
    """In units of the denominator: how much the figure known before counts."""


FIGURES: Final = {
    "input_bytes_per_token": Figure("prompt_bytes", "prompt_tokens", 1, 16, 200),
    "embedding_bytes_per_token": Figure("embedded_bytes", "embedded_tokens", 0.2, 16, 1),
    "output_bytes_per_token": Figure("text_bytes", "text_tokens", 1, 16, 50),
    "output_tokens_per_delta": Figure("delta_tokens", "deltas", 1, 8, 4),
    "tool_bytes_per_token": Figure("tool_bytes", "tool_tokens", 0.5, 8, 4),
    # Weighed by tokens: by time, a fast model known before would count most for a key that is slow.
    "output_ms_per_token": Figure("eval_ms", "eval_tokens", 0.5, 1000, 2),
    "prompt_ms_per_token": Figure("prompt_ms", "evaluated_tokens", 0, 1000, 50),
    "load_ms": Figure("load_ms", "loads", 0, 600_000, 0.1),
}


def mixed(rows: Iterable[LedgerRow]) -> set[ModelOwner]:
    """Return the models and owners of answers in which text and a tool call have to be separated."""
    return {
        asked
        for row in rows
        if row.usage_source == Source.REPORTED and row.tool_bytes and (asked := _asked(row)) is not None
    }


def figures(rows: Iterable[LedgerRow], known: Mapping[ModelOwner, Ratios]) -> list[Figures]:
    """Sum the answers of a batch for each key and each tenant, in the order in which they are locked.

    known are the figures of those that mixed returns.
    """
    sums: defaultdict[tuple[str, UUID, UUID], _Sums] = defaultdict(_Sums)
    for row in rows:
        asked = _asked(row)
        if row.usage_source != Source.REPORTED or asked is None:
            continue
        for scope in (asked.owner.key, asked.owner.tenant):
            sums[asked.model, scope, asked.owner.tenant].add(row, known.get(asked, DEFAULTS))
    return [
        Figures(model, scope, tenant, of.answers, **of.sums)
        for (model, scope, tenant), of in sorted(sums.items())
        if of.sums
    ]


def _asked(row: LedgerRow) -> ModelOwner | None:
    if not row.model or row.tenant_id is None or row.key_id is None:
        return None
    return ModelOwner(canonical(row.model), Owner(row.tenant_id, row.key_id))


def ratios(model: Mapping[str, float], *scopes: Figures | None) -> Ratios:
    """Blend the medians of a model with the sums of a tenant and a key, each heavier than the one before."""
    blended = {}
    for name, figure in FIGURES.items():
        value = model.get(name, getattr(DEFAULTS, name))
        for sums in scopes:
            if sums is not None:
                value = _blend(figure, value, sums)
        blended[name] = value
    return Ratios(**blended)


def _blend(figure: Figure, prior: float, sums: Figures) -> float:
    numerator, denominator = getattr(sums, figure.numerator), getattr(sums, figure.denominator)
    weight = figure.prior_weight
    value = (prior * weight + numerator) / (weight + denominator)
    return float(min(max(value, figure.least), figure.most))


@define
class _Sums:
    answers: int = 0
    sums: defaultdict[str, float] = field(factory=lambda: defaultdict(float))

    def add(self, row: LedgerRow, known: Ratios) -> None:
        self.answers += 1
        self._add_prompt(row)
        if row.load_ms and row.load_ms >= LOADED_MS:
            self._sum(load_ms=row.load_ms, loads=1)
        if row.path not in EMBEDDINGS and row.output_tokens > 0:
            self._add_answer(row, known)
            self._sum(answer_tokens=row.output_tokens, generations=1)

    def _add_prompt(self, row: LedgerRow) -> None:
        if not row.input_tokens or not row.prompt_bytes or row.images:
            return
        if row.path in EMBEDDINGS:
            self._sum(embedded_bytes=row.prompt_bytes, embedded_tokens=row.input_tokens)
        elif row.prompt_bytes >= LEAST_PROMPT_BYTES:
            self._sum(prompt_bytes=row.prompt_bytes, prompt_tokens=row.input_tokens)
        if row.prompt_eval_ms:
            evaluated = max(0, row.input_tokens - (row.cached_tokens or 0))
            self._sum(prompt_ms=row.prompt_eval_ms, evaluated_tokens=evaluated)

    def _add_answer(self, row: LedgerRow, known: Ratios) -> None:
        text, tool = row.text_bytes or 0, row.tool_bytes or 0
        if tool:
            frames, of_bytes = row.deltas or 0, text / known.output_bytes_per_token
            of_text = frames * known.output_tokens_per_delta or of_bytes
            self._sum(tool_bytes=tool, tool_tokens=max(1.0, row.output_tokens - of_text))
        elif text:
            self._sum(text_bytes=text, text_tokens=row.output_tokens)
            if row.deltas:
                self._sum(deltas=row.deltas, delta_tokens=row.output_tokens)
        if row.eval_ms:
            self._sum(eval_ms=row.eval_ms, eval_tokens=row.output_tokens)
        elif row.stream_ms:
            self._sum(eval_ms=row.stream_ms, eval_tokens=row.output_tokens)

    def _sum(self, **values: float) -> None:
        for name, value in values.items():
            self.sums[name] += value

"""What answers with reported usage teach about a model, for those that come without."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from attrs import define

from authz.models import canonical
from metering.cost import EMBEDDINGS
from metering.rows import Lesson, Ratios, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metering.rows import LedgerRow


@define
class _Sums:
    prompt_bytes: int = 0
    input_tokens: int = 0
    output_bytes: int = 0
    output_tokens: int = 0
    eval_ms: int = 0
    deltas: int = 0
    delta_tokens: int = 0
    template_tokens: int = 0
    samples: int = 0

    def add(self, row: LedgerRow) -> None:
        self.prompt_bytes += row.prompt_bytes or 0
        self.input_tokens += row.input_tokens
        self.output_bytes += row.output_bytes or 0
        self.output_tokens += row.output_tokens
        self.eval_ms += row.eval_ms or row.duration_ms or 0
        if row.deltas:
            self.deltas += row.deltas
            self.delta_tokens += row.output_tokens
        self.template_tokens = max(self.template_tokens, row.input_tokens - (row.prompt_bytes or 0))
        self.samples += 1

    def ratios(self) -> Ratios:
        return Ratios(
            self.prompt_bytes / self.input_tokens,
            self.output_bytes / self.output_tokens,
            max(1.0, self.delta_tokens / self.deltas) if self.deltas else 1.0,
            self.output_tokens * 1000 / self.eval_ms,
        )


def lessons(rows: Iterable[LedgerRow]) -> list[Lesson]:
    """Average per model, over rows that report all of it; images would spoil bytes per token."""
    sums: defaultdict[str, _Sums] = defaultdict(_Sums)
    for row in rows:
        if row.model is not None and _teaches(row):
            sums[canonical(row.model)].add(row)
    return [_lesson(model, sums[model]) for model in sorted(sums)]


def _lesson(model: str, sums: _Sums) -> Lesson:
    return Lesson(model, sums.ratios(), sums.template_tokens, sums.samples)


def _teaches(row: LedgerRow) -> bool:
    return bool(
        row.usage_source == Source.REPORTED
        and row.path not in EMBEDDINGS
        and row.prompt_bytes
        and row.input_tokens > 0
        and row.output_bytes
        and row.output_tokens > 0
        and (row.eval_ms or row.duration_ms)
        and not row.images
    )

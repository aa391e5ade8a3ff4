"""What a request costs: one pure function, the table of the design's section 2.2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from attrs import frozen

from metering.rows import Ratios, Source

if TYPE_CHECKING:
    from metering.journal import Record

EMBEDDINGS: Final = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})
"""Routes that produce no output tokens."""

ANTHROPIC: Final = "/v1/messages"
"""The route whose reported input leaves cached tokens out."""

IMAGE_TOKENS: Final = 768
"""What Ollama itself counts for an image before it has looked at it."""

_NEVER_RAN: Final = frozenset({"denied", "refused", "authz_failed"})
_ABANDONED: Final = frozenset({"client_gone", "cut_cap", "cut_deadline", "killed", "shutdown"})


@frozen
class Cost:
    """Tokens to charge; overrun is what no reservation covered, 0 unless a ceiling broke."""

    input_tokens: int
    output_tokens: int
    overrun_tokens: int
    source: Source


FREE: Final = Cost(0, 0, 0, Source.NONE)


def cost(record: Record, ratios: Ratios) -> Cost:
    """Charge what the backend reported; else what can be counted, never more than was reserved."""
    if not _ran(record):
        return FREE
    input_tokens, is_input_reported = _input(record, ratios)
    output_tokens, is_output_reported = _output(record, ratios)
    is_reported = is_input_reported and is_output_reported
    source = Source.REPORTED if is_reported else Source.COUNTED
    return Cost(input_tokens, output_tokens, _overrun(record, input_tokens + output_tokens), source)


def _ran(record: Record) -> bool:
    """Whether a backend worked for this request and did not refuse it."""
    if record.reserved is None or record.outcome in _NEVER_RAN:
        return False
    if record.upstream_status is None:  # a single answer has no status before it is complete
        return record.outcome in _ABANDONED and record.backend is not None
    return 200 <= record.upstream_status < 300  # noqa: PLR2004


def _input(record: Record, ratios: Ratios) -> tuple[int, bool]:
    if record.input_tokens is not None:
        cached = record.cached_tokens or 0 if record.path == ANTHROPIC else 0
        return record.input_tokens + cached, bool(record.terminal)
    counted = math.ceil((record.prompt_bytes or 0) / ratios.input_bytes_per_token)
    counted += IMAGE_TOKENS * (record.images or 0)
    reserved = record.reserved.input if record.reserved else 0
    return max(1, min(counted, reserved)), False  # what ran is never free


def _output(record: Record, ratios: Ratios) -> tuple[int, bool]:
    if record.path in EMBEDDINGS:
        return record.output_tokens or 0, True
    deltas, reported = record.deltas or 0, record.output_tokens or 0
    if record.terminal and record.output_tokens is not None:
        if deltas <= reported + max(4, reported // 20):
            return reported, True
        return max(reported, deltas), False
    learned = _learned(record, deltas, ratios)
    if record.stream is False and record.outcome in _ABANDONED:
        elapsed_s = (record.duration_ms or 0) / 1000
        learned = max(learned, math.ceil(elapsed_s * ratios.output_tokens_per_s))
    reserved = record.reserved.output if record.reserved else 0
    # What was delivered is charged; what is only reckoned never passes the reservation.
    return max(deltas, reported, min(learned, reserved)), False


def _learned(record: Record, deltas: int, ratios: Ratios) -> int:
    """Deltas are tokens but for a few without text; bytes tell less, but a single answer has no deltas."""
    if deltas:
        return math.ceil(deltas * ratios.output_tokens_per_delta)
    return math.ceil((record.output_bytes or 0) / ratios.output_bytes_per_token)


def _overrun(record: Record, charged: int) -> int:
    """Return what was charged beyond a reservation that was meant as a bound, as under every budget."""
    reserved = record.reserved
    if reserved is None:
        return 0
    if record.path in EMBEDDINGS:
        # A token is a byte at least; a reservation below that was an estimate, or the whole context.
        is_bound = reserved.input >= (record.prompt_bytes or 0)
    else:
        is_bound = record.max_output is not None
    bound = reserved.input + max(reserved.output, record.max_output or 0)
    return max(0, charged - bound) if is_bound else 0

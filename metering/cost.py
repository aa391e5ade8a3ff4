"""What a request costs: one pure function, the table of the design's section 2.2."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.types import GREATEST_COUNT
from metering.figures import Ratios
from metering.lines import Tokens
from metering.rows import Source

if TYPE_CHECKING:
    from metering.lines import Record

EMBEDDINGS: Final = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})
"""Routes that produce no output tokens."""

ANTHROPIC: Final = "/v1/messages"
"""The route whose reported input leaves cached tokens out."""

IMAGE_TOKENS: Final = 768
"""Ollama's own count of an image before it has looked at it."""

CAUTIOUS_BYTES_PER_TOKEN: Final = 2.5
"""Prompts that no backend has counted are taken to be at least as dense as this, so that hanging up before
the count comes is not cheaper than waiting for it. Prose has 4 to 5 bytes a token, digits and code 2 to 3.
"""

SURE_SHARE: Final = 0.75
"""How much of the tokens that a backend may have produced unseen is charged: it has waited, too."""

ORPHANED: Final = "orphaned"
"""The outcome of a request whose record never came."""

_NEVER_RAN: Final = frozenset({"denied", "refused", "authz_failed"})
_ABANDONED: Final = frozenset({"client_gone", "cut_cap", "cut_deadline", "killed", "shutdown", ORPHANED})
_FAILED: Final = frozenset({"upstream_error", "upstream_gone"})


@frozen
class Cost:
    """Tokens to charge; overrun is what exceeds the ceiling, 0 unless a bound broke."""

    input_tokens: int
    output_tokens: int
    overrun_tokens: int
    source: Source


FREE: Final = Cost(0, 0, 0, Source.NONE)


def cost(record: Record, ratios: Ratios, *, unseen_s: float = 0.0) -> Cost:
    """Charge what the backend reported; else what was delivered; else what it can have produced.

    unseen_s is how long a stream may have run after the last that the journal knows of it.
    """
    if not _may_have_worked(record):
        return FREE
    input_tokens, is_input_reported = _input(record, ratios)
    output_tokens, is_output_reported = _output(record, ratios, unseen_s=unseen_s)
    is_reported = is_input_reported and is_output_reported
    if not is_reported and not output_tokens and (_has_failed(record) or _only_loaded(record, ratios)):
        return FREE
    source = Source.REPORTED if is_reported else Source.COUNTED
    if record.outcome == ORPHANED:
        source = Source.PROGRESS
    return Cost(input_tokens, output_tokens, _overrun(record, input_tokens + output_tokens), source)


def needs_figures(record: Record) -> bool:
    """Return whether its cost depends on what is known of its model."""
    if not _may_have_worked(record):
        return False
    unknown = Ratios()
    return not (_input(record, unknown)[1] and _output(record, unknown, unseen_s=0.0)[1])


def _may_have_worked(record: Record) -> bool:
    """Return whether a backend can have begun: one that was busy, or refused the request, has not."""
    if record.reserved is None or record.outcome in _NEVER_RAN:
        return False
    status = record.upstream_status
    if status is None:  # a single answer has no status before it is complete
        if record.outcome in _FAILED:
            return record.sent is True
        return record.outcome in _ABANDONED and record.backend is not None
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES or (
        status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.SERVICE_UNAVAILABLE
    )


def _has_failed(record: Record) -> bool:
    """Return whether the backend itself gave up."""
    return record.outcome in _FAILED or (record.upstream_status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR


def _ceiling(record: Record) -> Tokens:
    return record.ceiling or record.reserved or Tokens(GREATEST_COUNT, GREATEST_COUNT)


def _input(record: Record, ratios: Ratios) -> tuple[int, bool]:
    if record.input_tokens is not None:
        cached = record.cached_tokens or 0 if record.path == ANTHROPIC else 0
        return record.input_tokens + cached, bool(record.terminal)
    if record.path in EMBEDDINGS:
        ratio = ratios.embedding_bytes_per_token
    else:
        ratio = min(CAUTIOUS_BYTES_PER_TOKEN, ratios.input_bytes_per_token)
    counted = math.ceil((record.prompt_bytes or 0) / ratio) + IMAGE_TOKENS * (record.images or 0)
    return max(1, min(counted, _ceiling(record).input)), False  # what ran is never free


def _output(record: Record, ratios: Ratios, *, unseen_s: float) -> tuple[int, bool]:
    if record.path in EMBEDDINGS:
        return record.output_tokens or 0, True
    deltas, reported = record.deltas or 0, record.output_tokens or 0
    if record.terminal and record.output_tokens is not None:
        if deltas <= reported + max(4, reported // 20):
            return reported, True
        return max(reported, deltas), False
    counted = _delivered(record, ratios)
    if not counted and record.stream is False:
        tokens = math.floor(_worked_s(record, ratios) * ratios.output_tokens_per_s * SURE_SHARE)
    else:
        tokens = math.ceil(counted + unseen_s * ratios.output_tokens_per_s)
    # What was delivered is charged; what is only reckoned never passes the ceiling.
    return max(deltas, reported, min(tokens, _ceiling(record).output)), False


def _delivered(record: Record, ratios: Ratios) -> float:
    """Return the tokens of the content that has come.

    A delta is a token but for a few that share one; a single answer, or one text of unknown deltas, is
    counted by its bytes, and so is a tool call, which comes in one frame however long it is.
    """
    tool_bytes = record.tool_bytes or 0
    of_tools = tool_bytes / ratios.tool_bytes_per_token
    if record.deltas:
        return record.deltas * ratios.output_tokens_per_delta + of_tools
    return (_content_bytes(record) - tool_bytes) / ratios.output_bytes_per_token + of_tools


def _content_bytes(record: Record) -> int:
    return max(record.output_bytes or 0, (record.text_bytes or 0) + (record.tool_bytes or 0))


def _worked_s(record: Record, ratios: Ratios) -> float:
    """Return how long a backend can have produced tokens: without the model's load, and the prompt."""
    idle_ms = ratios.prompt_ms_per_token * (record.prompt_bytes or 0) / ratios.input_bytes_per_token
    if record.cold:
        idle_ms += ratios.load_ms
    return max(0.0, _served_ms(record) - idle_ms) / 1000


def _only_loaded(record: Record, ratios: Ratios) -> bool:
    """Return whether the client left while the model was still being loaded."""
    return bool(record.cold) and record.outcome in _ABANDONED and _served_ms(record) <= ratios.load_ms


def _served_ms(record: Record) -> int:
    """Return how long a backend had the request."""
    return (record.duration_ms or 0) - (record.waited_ms or 0)


def _overrun(record: Record, charged: int) -> int:
    """Return the tokens charged beyond the ceiling."""
    if record.ceiling is None:
        return 0
    return max(0, charged - record.ceiling.input - record.ceiling.output)

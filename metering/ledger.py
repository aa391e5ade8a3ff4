"""Ledger rows: a record with its cost, an open request that never ended, and the correction of that."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from metering.days import day_of
from metering.rows import ADJUSTMENT, NO_BOOT, SETTLEMENT, Charged, LedgerRow, OpenRow, Owner, Source

if TYPE_CHECKING:
    from uuid import UUID

    from authz.types import OpenRequest
    from metering.cost import Cost
    from metering.figures import Ratios
    from metering.journal import Ended
    from metering.lines import Open, Record


TEXT_CHARS: Final = 512
"""Longer texts of a record are cut: what a client sends must not fill the table."""


def settlement(ended: Ended, owner: Owner | None, ratios: Ratios, cost: Cost) -> LedgerRow:
    """Return the row of a record; a request without a known tenant costs nothing."""
    day, month = _windows(ended.record)
    row = _recorded(ended)._replace(
        tenant_id=owner.tenant if owner else None,
        key_id=owner.key if owner else None,
        day=day,
        month=month,
        input_tokens=cost.input_tokens,
        output_tokens=cost.output_tokens,
        overrun_tokens=cost.overrun_tokens,
        usage_source=cost.source,
    )
    if cost.source not in {Source.COUNTED, Source.PROGRESS}:
        return row
    return row._replace(
        input_bytes_per_token=ratios.input_bytes_per_token,
        output_bytes_per_token=ratios.output_bytes_per_token,
        output_tokens_per_delta=ratios.output_tokens_per_delta,
        output_tokens_per_s=ratios.output_tokens_per_s,
        tool_bytes_per_token=ratios.tool_bytes_per_token,
    )


def _recorded(ended: Ended) -> LedgerRow:
    """Return the row of a record before it has an owner and a price."""
    record = ended.record
    return LedgerRow(
        request_id=record.id,
        entry=SETTLEMENT,
        at=ended.at,
        node=record.node,
        boot=record.boot,
        seq=record.seq,
        ip=storable(record.ip),
        lookup=storable(record.lookup),
        method=storable(record.method),
        path=storable(record.path),
        model=storable(record.model),
        backend=storable(record.backend),
        stream=record.stream,
        outcome=storable(record.outcome) or "",
        reason=storable(record.reason),
        status=record.status,
        upstream_status=record.upstream_status,
        reserved_input=record.reserved.input if record.reserved else None,
        reserved_output=record.reserved.output if record.reserved else None,
        max_output=record.max_output,
        terminal=record.terminal,
        reported_input_tokens=record.input_tokens,
        reported_output_tokens=record.output_tokens,
        cached_tokens=record.cached_tokens,
        deltas=record.deltas,
        output_bytes=record.output_bytes,
        prompt_bytes=record.prompt_bytes,
        images=record.images,
        ttft_ms=record.ttft_ms,
        duration_ms=record.duration_ms,
        load_ms=record.load_ms,
        prompt_eval_ms=record.prompt_eval_ms,
        eval_ms=record.eval_ms,
        ceiling_input=record.ceiling.input if record.ceiling else None,
        ceiling_output=record.ceiling.output if record.ceiling else None,
        text_bytes=record.text_bytes,
        tool_bytes=record.tool_bytes,
        messages=record.messages,
        tools=record.tools,
        cold=record.cold,
        stream_ms=record.stream_ms,
        sent=record.sent,
        tried=storable(record.tried),
        waited_ms=record.waited_ms,
        bound=record.bound,
        bound_table=storable(record.table),
        model_asked=storable(record.model_asked),
        trace_id=storable(record.trace_id),
        end_user=storable(record.end_user),
    )


def swept(request: OpenRequest, owner: Owner, *, node: UUID, at: datetime) -> LedgerRow:
    """Return the row of a reservation that no journal knows: it never ran, so it is free."""
    return LedgerRow(
        request_id=request.request_id,
        entry=SETTLEMENT,
        at=at,
        node=node,
        boot=NO_BOOT,
        tenant_id=owner.tenant,
        key_id=owner.key,
        outcome="swept",
        reserved_input=request.held_input,
        reserved_output=request.held_output,
        day=request.day,
        month=request.month,
    )


def adjustment(late: LedgerRow, charged: Charged) -> LedgerRow:
    """Return the row of a record that came after its request was settled as an orphan: actual - charged.

    What was credited meanwhile stands; no more is taken back than is left of what was charged.
    """
    credited_beyond = max(0, charged.credited_tokens - late.tokens)
    return late._replace(
        entry=ADJUSTMENT,
        tenant_id=charged.owner.tenant,
        key_id=charged.owner.key,
        day=charged.day,
        month=charged.month,
        input_tokens=late.input_tokens - charged.input_tokens,
        output_tokens=late.output_tokens - charged.output_tokens + credited_beyond,
    )


def open_row(line: Open) -> OpenRow:
    """Return the row of an open line."""
    return OpenRow(
        request_id=line.id,
        node=line.node,
        boot=line.boot,
        owner=Owner(line.tenant, line.key),
        reserved_input=line.reserved.input,
        reserved_output=line.reserved.output,
        day=line.windows.day,
        month=line.windows.month_start,
        deadline=datetime.fromtimestamp(line.deadline, UTC),
        ip=storable(line.ip),
        path=storable(line.path),
        model=storable(line.model),
        backend=storable(line.backend),
        stream=line.stream,
        ceiling_input=line.ceiling.input if line.ceiling else None,
        ceiling_output=line.ceiling.output if line.ceiling else None,
        prompt_bytes=line.prompt_bytes,
        images=line.images,
        queued=line.queued,
        model_asked=storable(line.model_asked),
        trace_id=storable(line.trace_id),
        end_user=storable(line.end_user),
    )


def _windows(record: Record) -> tuple[date | None, date | None]:
    """Return the windows decided at admission; without them the day of the request counts."""
    if record.windows is not None:
        return record.windows.day, record.windows.month_start
    if record.reserved is None:
        return None, None
    day = day_of(record.id)
    return day, day.replace(day=1)


def storable(value: str | None) -> str | None:
    """Return a text as Postgres takes it: without NUL, and bounded."""
    return value[:TEXT_CHARS].replace("\0", "\ufffd") if value else value

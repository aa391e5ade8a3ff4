"""The lines of the journal that our Caddy modules write, as typed values; golden samples bind both sides."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Final
from uuid import UUID

from msgspec import Meta, Struct

from authz.types import GREATEST_COUNT

VERSION: Final = 1

LAST_ID_MS: Final = 4_102_444_800_000  # 2100

Count = Annotated[int, Meta(ge=0, le=GREATEST_COUNT)]
Status = Annotated[int, Meta(ge=0, le=999)]
Images = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Month = Annotated[str, Meta(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
Seconds = Annotated[float, Meta(ge=0, le=LAST_ID_MS / 1000)]


class Tokens(Struct, frozen=True, gc=False):
    """Tokens that an admission held, or the most that its request can be charged."""

    input: Count
    output: Count


class Windows(Struct, frozen=True, gc=False):
    """The day and the month that pay, decided at admission."""

    day: date
    month: Month

    @property
    def month_start(self) -> date:
        """The month as its first day."""
        return date(int(self.month[:4]), int(self.month[5:]), 1)


class Previous(Struct, frozen=True, gc=False):
    """The line up to which all lines had been written: the last one of a boot, or of a file of it."""

    boot: UUID
    seq: Count


class Head(Struct, frozen=True, gc=False, kw_only=True):
    """The beginning of every line: which process wrote it, and its number there."""

    v: int
    node: UUID
    boot: UUID
    seq: Count


class Boot(Head, frozen=True, gc=False, kw_only=True):
    """A Caddy process has started, or goes on in place of a file that was lost.

    Whatever an earlier process left open is dead.
    """

    seq: Count = 0
    previous: Previous | None = None


class Open(Head, frozen=True, gc=False, kw_only=True):
    """A request is about to go upstream; deadline in unix seconds."""

    id: UUID
    tenant: UUID
    key: UUID
    reserved: Tokens
    windows: Windows
    deadline: Seconds
    trace_id: str | None = None
    ip: str | None = None
    end_user: str | None = None
    path: str | None = None
    model: str | None = None
    model_asked: str | None = None
    backend: str | None = None
    stream: bool | None = None
    ceiling: Tokens | None = None
    prompt_bytes: Count | None = None
    images: Images | None = None
    queued: bool = False
    """It waited for a slot of its backend; a progress line names it once it ran."""


class Progress(Head, frozen=True, gc=False, kw_only=True):
    """The content of streams that moved, so far: id, deltas, text_bytes, tool_bytes of each."""

    at: Seconds
    running: tuple[tuple[UUID, Count, Count, Count], ...]


class Record(Head, frozen=True, gc=False, kw_only=True):
    """A request has ended, whatever became of it; None means "not said", never 0."""

    id: UUID
    outcome: str
    trace_id: str | None = None
    """The trace that client or Caddy put it into; lines of the release before lack it."""
    ip: str | None = None
    end_user: str | None = None
    """The user that the client names, if its tenant keeps them."""
    lookup: str | None = None
    tenant: UUID | None = None
    key: UUID | None = None
    method: str | None = None
    path: str | None = None
    model: str | None = None
    model_asked: str | None = None
    """What the client called the model, where that is another name."""
    backend: str | None = None
    tried: str | None = None
    sent: bool | None = None
    stream: bool | None = None
    reason: str | None = None
    status: Status | None = None
    upstream_status: Status | None = None
    reserved: Tokens | None = None
    ceiling: Tokens | None = None
    windows: Windows | None = None
    max_output: Count | None = None
    cold: bool | None = None
    terminal: bool | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cached_tokens: Count | None = None
    deltas: Count | None = None
    text_bytes: Count | None = None
    tool_bytes: Count | None = None
    output_bytes: Count | None = None
    prompt_bytes: Count | None = None
    bound: Count | None = None
    table: str | None = None
    messages: Count | None = None
    tools: Count | None = None
    images: Images | None = None
    ttft_ms: Count | None = None
    duration_ms: Count | None = None
    waited_ms: Count | None = None
    """How long no backend had it, within duration_ms: for its body, for authz, for a slot."""
    stream_ms: Count | None = None
    load_ms: Count | None = None
    prompt_eval_ms: Count | None = None
    eval_ms: Count | None = None

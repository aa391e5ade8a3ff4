"""The values that cross between the files of metering; it imports none of them but days.

A row that is inserted into Postgres as a whole is a NamedTuple: its fields are columns of its table.
"""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from attrs import frozen

from metering.days import day_of

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

    from authz.types import Total


@frozen
class Cut:
    """A line too long to keep: how long it was, and its digest."""

    length: int
    sha256: bytes


@frozen
class Line:
    """One line without its newline; not whole if its file ended before the newline came."""

    position: int
    data: bytes
    cut: Cut | None = None
    is_whole: bool = True


WINDOW_BYTES: Final = 4096
"""How much before a position shows whether it is still the same content: more than any record,
so that its id is in it; the ends of records are all alike.
"""


@frozen
class Mark:
    """How far metering has read one file: position is the start of the first line not yet read.

    A file is known by its first line (fingerprint) and by what comes before the position (marker,
    the SHA-256 of a window; empty if anything may). Content that has the one but not the other is
    another generation of the fingerprint.
    """

    fingerprint: bytes
    generation: int
    name: str
    position: int = 0
    marker: bytes = b""
    is_finished: bool = False

    @property
    def window_bytes(self) -> int:
        """Return how many bytes before the position the marker covers."""
        return min(self.position, WINDOW_BYTES) if self.marker else 0

    def is_after(self, window: bytes) -> bool:
        """Return whether these are the bytes that came before the position."""
        return not self.marker or self.marker == hashlib.sha256(window).digest()


@frozen
class Letter:
    """A dead letter and the line it was, or the row that stands in its place."""

    id: int
    reason: str
    line: Line


class Source(StrEnum):
    """The origin of the figures of a ledger row."""

    REPORTED = "reported"
    COUNTED = "counted"
    PROGRESS = "progress"
    NONE = "none"


SETTLEMENT: Final = 0


ADJUSTMENT: Final = 1


NO_BOOT: Final = UUID(int=0)
"""Stands for the boot of what no Caddy ever wrote of."""


@frozen
class Owner:
    """The tenant and the key that a request belongs to."""

    tenant: UUID
    key: UUID


@frozen
class OpenRow:
    """A request whose open line is committed and whose record is not."""

    request_id: UUID
    node: UUID
    boot: UUID
    owner: Owner
    reserved_input: int
    reserved_output: int
    day: date
    month: date
    deadline: datetime
    ip: str | None = None
    path: str | None = None
    model: str | None = None
    backend: str | None = None
    stream: bool | None = None
    ceiling_input: int | None = None
    ceiling_output: int | None = None
    prompt_bytes: int | None = None
    images: int | None = None
    queued: bool = False
    started_at: datetime | None = None
    """When a queued one was first listed as running."""
    model_asked: str | None = None
    """What the client called the model, where that is an alias."""
    trace_id: str | None = None
    end_user: str | None = None


@frozen
class Charged:
    """The tokens that an orphan was charged before its record came after all."""

    request_id: UUID
    owner: Owner
    day: date
    month: date
    input_tokens: int
    output_tokens: int
    credited_tokens: int


class LedgerRow(NamedTuple):
    """A row of the ledger: the fields are columns of the table, but ip and end_user, for which it has ids."""

    request_id: UUID
    entry: int
    at: datetime
    node: UUID
    boot: UUID
    seq: int | None = None
    ip: str | None = None
    lookup: str | None = None
    tenant_id: UUID | None = None
    key_id: UUID | None = None
    method: str | None = None
    path: str | None = None
    model: str | None = None
    backend: str | None = None
    stream: bool | None = None
    outcome: str = ""
    reason: str | None = None
    status: int | None = None
    upstream_status: int | None = None
    reserved_input: int | None = None
    reserved_output: int | None = None
    day: date | None = None
    month: date | None = None
    max_output: int | None = None
    terminal: bool | None = None
    reported_input_tokens: int | None = None
    reported_output_tokens: int | None = None
    cached_tokens: int | None = None
    deltas: int | None = None
    output_bytes: int | None = None
    prompt_bytes: int | None = None
    images: int | None = None
    ttft_ms: int | None = None
    duration_ms: int | None = None
    load_ms: int | None = None
    prompt_eval_ms: int | None = None
    eval_ms: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    overrun_tokens: int = 0
    usage_source: str = Source.NONE
    input_bytes_per_token: float | None = None
    output_bytes_per_token: float | None = None
    output_tokens_per_delta: float | None = None
    output_tokens_per_s: float | None = None
    actor: str | None = None
    ceiling_input: int | None = None
    ceiling_output: int | None = None
    text_bytes: int | None = None
    tool_bytes: int | None = None
    messages: int | None = None
    tools: int | None = None
    cold: bool | None = None
    stream_ms: int | None = None
    tool_bytes_per_token: float | None = None
    sent: bool | None = None
    tried: str | None = None
    waited_ms: int | None = None
    bound: int | None = None
    bound_table: str | None = None
    model_asked: str | None = None
    trace_id: str | None = None
    end_user: str | None = None

    @property
    def partition(self) -> date:
        """Return the day, in UTC, whose partition holds it."""
        return day_of(self.request_id)

    @property
    def tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens


@frozen
class Increase:
    """Tokens to add to a window of a tenant or a key (scope)."""

    tenant: UUID
    scope: UUID
    period: str
    start: date
    tokens: int


@frozen
class TenantTotal:
    """The new total of a window, and its tenant."""

    tenant: UUID
    total: Total


class Use(NamedTuple):
    """The sums to add to a row of usage_daily: the fields are columns of the table."""

    day: date
    tenant_id: UUID
    key_id: UUID
    model: str
    requests: int
    input_tokens: int
    output_tokens: int


KeyMinute = tuple[UUID, datetime]


class Refused(NamedTuple):
    """The count to add to a row of refusals_per_minute: the fields are columns of the table."""

    minute: datetime
    tenant_id: UUID | None
    key_id: UUID | None
    source: IPv4Network | IPv6Network | None
    reason: str
    refusals: int


@frozen
class Tally:
    """Counts that take only a moment; counting stops at 100,000."""

    open_requests: int
    dead_letters: int
    lost_lines: int
    unpublished: int
    learned_models: int


@frozen
class Reckoned:
    """A window as it is, and the sum of what it is made of; version 0 if there is no row."""

    total: Total
    tokens: int

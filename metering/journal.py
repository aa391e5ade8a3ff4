"""Journal lines as typed values: what cannot be understood becomes a dead letter, with a reason."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import msgspec
from attrs import frozen
from msgspec import Meta, Struct

from authz.types import GREATEST_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from metering.rows import Line

VERSION: Final = 1

RAW_BYTES: Final = 8192
"""How much of a line a dead letter keeps."""

GLUE: Final = b'{"level":'
"""What every line starts with; inside a JSON string its quotes would be escaped."""

# JSON nested deeper than the decoder's stack is a RecursionError.
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_FIRST_ID_MS: Final = 1_577_836_800_000  # 2020
_LAST_ID_MS: Final = 4_102_444_800_000  # 2100
_UUID_VERSION: Final = 7

Count = Annotated[int, Meta(ge=0, le=GREATEST_COUNT)]
Status = Annotated[int, Meta(ge=0, le=999)]
Month = Annotated[str, Meta(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
Seconds = Annotated[float, Meta(ge=0, le=_LAST_ID_MS / 1000)]


class Reserved(Struct, frozen=True, gc=False):
    """Tokens that an admission held."""

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


class Boot(Struct, frozen=True, gc=False):
    """A Caddy process has started, or goes on in place of a file that was lost.

    Whatever an earlier process left open is dead.
    """

    v: int
    node: UUID
    boot: UUID
    seq: Count = 0
    previous: Previous | None = None


class Open(Struct, frozen=True, gc=False):
    """A request is about to go upstream; deadline in unix seconds."""

    v: int
    id: UUID
    node: UUID
    boot: UUID
    seq: Count
    tenant: UUID
    key: UUID
    reserved: Reserved
    windows: Windows
    deadline: Seconds


class Record(Struct, frozen=True, gc=False):
    """A request has ended, whatever became of it; None means "not said", never 0."""

    v: int
    id: UUID
    node: UUID
    boot: UUID
    seq: Count
    outcome: str
    ip: str | None = None
    lookup: str | None = None
    tenant: UUID | None = None
    key: UUID | None = None
    method: str | None = None
    path: str | None = None
    model: str | None = None
    backend: str | None = None
    stream: bool | None = None
    reason: str | None = None
    status: Status | None = None
    upstream_status: Status | None = None
    reserved: Reserved | None = None
    windows: Windows | None = None
    max_output: Count | None = None
    terminal: bool | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cached_tokens: Count | None = None
    deltas: Count | None = None
    output_bytes: Count | None = None
    prompt_bytes: Count | None = None
    images: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    ttft_ms: Count | None = None
    duration_ms: Count | None = None
    load_ms: Count | None = None
    prompt_eval_ms: Count | None = None
    eval_ms: Count | None = None


class _Head(Struct, gc=False):
    msg: str
    ts: Seconds
    gateway: msgspec.Raw


class _Version(Struct, gc=False):
    v: int


_head = msgspec.json.Decoder(_Head)
_version = msgspec.json.Decoder(_Version)
_boot = msgspec.json.Decoder(Boot)
_open = msgspec.json.Decoder(Open)
_record = msgspec.json.Decoder(Record)


@frozen
class Ended:
    """A record and when its line was written."""

    at: datetime
    record: Record


@frozen
class DeadLetter:
    """Bytes of the journal that were not understood; raw is their beginning."""

    position: int
    length: int
    sha256: bytes
    reason: str
    raw: bytes


@frozen
class Page:
    """What some lines say, in their order."""

    boots: tuple[Boot, ...] = ()
    opens: tuple[Open, ...] = ()
    ended: tuple[Ended, ...] = ()
    dead: tuple[DeadLetter, ...] = ()


Event = Boot | Open | Ended


def refused(line: Line) -> Page:
    """Return the dead letter of a line that Postgres refuses although it is well-formed."""
    return Page(dead=(_letter(line.position, line.data, "refused"),))


def understand(lines: Iterable[Line]) -> Page:
    """Read lines; blank ones say nothing, every other is an event, a dead letter, or one of each."""
    events: list[Event] = []
    dead: list[DeadLetter] = []
    for line in lines:
        event, letter = _read(line)
        if event is not None:
            events.append(event)
        if letter is not None:
            dead.append(letter)
    return Page(
        boots=tuple(event for event in events if isinstance(event, Boot)),
        opens=tuple(event for event in events if isinstance(event, Open)),
        ended=tuple(event for event in events if isinstance(event, Ended)),
        dead=tuple(dead),
    )


def _read(line: Line) -> tuple[Event | None, DeadLetter | None]:
    if line.cut is not None:
        letter = DeadLetter(line.position, line.cut.length, line.cut.sha256, "too_long", line.data)
        return None, letter
    if not line.data or line.data.isspace():
        return None, None
    event = _event(line.data)
    if not isinstance(event, str):
        return event, None
    # A write that was torn has no newline, so the next entry hangs on the same line.
    glued_at = line.data.rfind(GLUE)
    rest = _event(line.data[glued_at:]) if glued_at > 0 else event
    if not isinstance(rest, str):
        return rest, _letter(line.position, line.data[:glued_at], "torn")
    return None, _letter(line.position, line.data, event if line.is_whole else "torn")


def _letter(position: int, data: bytes, reason: str) -> DeadLetter:
    return DeadLetter(position, len(data), hashlib.sha256(data).digest(), reason, data[:RAW_BYTES])


def _event(data: bytes) -> Event | str:
    """Parse the event of a line, or return the reason why it is none."""
    try:
        head = _head.decode(data)
    except msgspec.ValidationError:
        return "not_ours"
    except _UNDECODABLE:
        return "not_json"
    try:
        event = _typed(head)
    except _UNDECODABLE:
        return _why_invalid(head.gateway)
    if _values(event).v != VERSION:
        return "version_unknown"
    return event if _ids_are_sound(_values(event)) else "id_invalid"


def _typed(head: _Head) -> Event:
    if head.msg == "boot":
        return _boot.decode(head.gateway)
    if head.msg == "open":
        return _open.decode(head.gateway)
    return Ended(datetime.fromtimestamp(head.ts, UTC), _record.decode(head.gateway))


def _values(event: Event) -> Boot | Open | Record:
    return event.record if isinstance(event, Ended) else event


def _why_invalid(gateway: msgspec.Raw) -> str:
    try:
        return "field_invalid" if _version.decode(gateway).v == VERSION else "version_unknown"
    except _UNDECODABLE:
        return "version_unknown"


def _ids_are_sound(event: Boot | Open | Record) -> bool:
    """Whether boot and id are UUIDv7 of this century: their time names a partition, their order counts."""
    ids = (event.boot,) if isinstance(event, Boot) else (event.boot, event.id)
    return all(
        value.int >> 76 & 15 == _UUID_VERSION and _FIRST_ID_MS <= value.int >> 80 < _LAST_ID_MS
        for value in ids
    )

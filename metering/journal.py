"""Journal lines as typed values: what cannot be understood becomes a dead letter, with a reason."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Final

import msgspec
from attrs import asdict, evolve, fields, frozen
from msgspec import Struct

from metering.lines import VERSION, Boot, Head, Open, Progress, Record, Seconds
from metering.salvage import UNKNOWN, is_sound, salvaged

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from metering.rows import Line

RAW_BYTES: Final = 8192
"""How much of a line a dead letter keeps."""

GLUE: Final = b'{"level":'
"""What every line starts with; inside a JSON string its quotes would be escaped."""

# JSON nested deeper than the decoder's stack is a RecursionError.
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Head(Struct, gc=False):
    msg: str
    ts: Seconds
    gateway: msgspec.Raw


class _Version(Struct, gc=False):
    v: msgspec.Raw = msgspec.Raw()


_OURS: Final = msgspec.Raw(str(VERSION).encode())

_head = msgspec.json.Decoder(_Head)
_version = msgspec.json.Decoder(_Version)
_boot = msgspec.json.Decoder(Boot)
_open = msgspec.json.Decoder(Open)
_progress = msgspec.json.Decoder(Progress)
_record = msgspec.json.Decoder(Record)


@frozen
class Ended:
    """A record and when its line was written."""

    at: datetime
    record: Record


@frozen
class Moved:
    """A progress line and when it was written."""

    at: datetime
    progress: Progress


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
    """The events of some lines, in their order."""

    boots: tuple[Boot, ...] = ()
    opens: tuple[Open, ...] = ()
    progress: tuple[Moved, ...] = ()
    ended: tuple[Ended, ...] = ()
    dead: tuple[DeadLetter, ...] = ()
    salvaged: tuple[UUID, ...] = ()
    """Requests of which a field could not be read: they are settled all the same."""


Event = Boot | Open | Moved | Ended


def refused(line: Line, reason: str = "refused") -> Page:
    """Return the dead letter of a line that is not billed although it is well-formed."""
    return Page(dead=(_dead(line.position, line.data, reason),))


def joined(pages: Iterable[Page]) -> Page:
    """Return one page with everything that these have, of each kind in their order."""
    found = [asdict(page, recurse=False) for page in pages]
    return Page(**{kind.name: tuple(chain(*(each[kind.name] for each in found))) for kind in fields(Page)})


def understand(lines: Iterable[Line]) -> Page:
    """Read lines; blank ones are skipped, every other is an event, a dead letter, or one of each."""
    found = [_read(line) for line in lines]
    events = [each.event for each in found if each.event is not None]
    return Page(
        boots=tuple(event for event in events if isinstance(event, Boot)),
        opens=tuple(event for event in events if isinstance(event, Open)),
        progress=tuple(event for event in events if isinstance(event, Moved)),
        ended=tuple(event for event in events if isinstance(event, Ended)),
        dead=tuple(each.dead for each in found if each.dead is not None),
        salvaged=tuple(_id(each.event) for each in found if each.is_salvaged),
    )


@frozen
class _Found:
    """The event or dead letter that a line holds."""

    event: Event | None = None
    dead: DeadLetter | None = None
    is_salvaged: bool = False


def _read(line: Line) -> _Found:
    if line.cut is not None:
        dead = DeadLetter(line.position, line.cut.length, line.cut.sha256, "too_long", line.data)
        return _Found(dead=dead)
    if not line.data or line.data.isspace():
        return _Found()
    found = _event(line.data)
    if not isinstance(found, str):
        return found
    # A write that was torn has no newline, so the next entry hangs on the same line.
    glued_at = line.data.rfind(GLUE)
    rest = _event(line.data[glued_at:]) if glued_at > 0 else found
    if not isinstance(rest, str):
        return evolve(rest, dead=_dead(line.position, line.data[:glued_at], "torn"))
    return _Found(dead=_dead(line.position, line.data, found if line.is_whole else "torn"))


def _dead(position: int, data: bytes, reason: str) -> DeadLetter:
    return DeadLetter(position, len(data), hashlib.sha256(data).digest(), reason, data[:RAW_BYTES])


def _event(data: bytes) -> _Found | str:
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
        return _salvaged(head)
    if _values(event).v != VERSION:
        return "version_unknown"
    return _Found(event) if _is_sound(event) else _salvaged(head, otherwise="id_invalid")


def _typed(head: _Head) -> Event:
    if head.msg == "boot":
        return _boot.decode(head.gateway)
    if head.msg == "open":
        return _open.decode(head.gateway)
    at = datetime.fromtimestamp(head.ts, UTC)
    if head.msg == "progress":
        return Moved(at, _progress.decode(head.gateway))
    return Ended(at, _record.decode(head.gateway))


def _values(event: Event) -> Head:
    if isinstance(event, Moved):
        return event.progress
    return event.record if isinstance(event, Ended) else event


def _salvaged(head: _Head, *, otherwise: str = "field_invalid") -> _Found | str:
    """Return what can be read of a line whose request is known, or the reason why it is a dead letter."""
    if _is_of_another_version(head):
        return "version_unknown"
    event: Event | None = None
    if head.msg == "open":
        event = salvaged(Open, head.gateway)
    elif head.msg not in {"boot", "progress"}:
        record = salvaged(Record, head.gateway)
        event = Ended(datetime.fromtimestamp(head.ts, UTC), record) if record else None
    if event is None:
        return otherwise
    return _Found(event, is_salvaged=True) if _is_sound(event) else "id_invalid"


def _is_of_another_version(head: _Head) -> bool:
    """Return whether its version is not ours, or can't be read: then nothing else of it can."""
    try:
        return _version.decode(head.gateway).v != _OURS
    except _UNDECODABLE:
        return False  # it is no object at all


def _is_sound(event: Event) -> bool:
    """Return whether its ids are sound; a boot that can't be read has been replaced by one of no node."""
    values = _values(event)
    ids = [] if values.boot == UNKNOWN else [values.boot]
    if isinstance(values, Open | Record):
        ids.append(values.id)
    return all(map(is_sound, ids))


def _id(event: Event | None) -> UUID:
    if isinstance(event, Ended):
        return event.record.id
    return event.id if isinstance(event, Open) else UNKNOWN

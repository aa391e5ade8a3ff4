"""The attack cases of `cases/*.toml`, and what each must find: statuses, hits, records, framing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from tests.gateway import Gateway
from tests.security import wire
from tests.security.observed import Witness
from tests.security.wire import Line, Reply

_FOLDER: Final = Path(__file__).parent / "cases"
_PROBE: Final = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes over one connection, and what may come of it."""

    name: str
    send: str
    answers: list[list[int]]
    hits: int


class _File(msgspec.Struct, forbid_unknown_fields=True):
    case: list[Case]


def cases() -> list[Case]:
    """Return every case, in the order of the files' names."""
    files = sorted(_FOLDER.glob("*.toml"))
    return [case for file in files for case in msgspec.toml.decode(file.read_bytes(), type=_File).case]


def faults(case: Case, gateway: Gateway, witness: Witness) -> list[str]:
    """Make an attack; returns what it found that must not be, one sentence each."""
    ids, found = verdict(case, gateway.url, gateway.key, witness=witness)
    witness.settled(ids)
    return [*found, *_unrecorded(ids, witness)]


def verdict(case: Case, url: str, key: str, *, witness: Witness) -> tuple[list[str], list[str]]:
    """Make an attack on any proxy; returns the ids of its answers, and what must not be but the records."""
    witness.forget()
    try:
        with wire.line(url) as opened:
            opened.send(case.send.replace("<key>", key).encode("latin-1"))
            replies = [opened.read() for _ in case.answers]
            is_framed = _is_framed(opened, replies[-1])
    except (OSError, ValueError, IndexError) as error:
        return [], [f"no answer as expected: {error!r}"]
    ids = [reply.request_id for reply in replies if reply.request_id]
    return ids, list(_wrong(case, replies, witness, is_framed=is_framed))


def _wrong(case: Case, replies: list[Reply], witness: Witness, *, is_framed: bool) -> Iterator[str]:
    for reply, allowed in zip(replies, case.answers, strict=True):
        if reply.status not in allowed:
            yield f"answered {reply.status} instead of {allowed}"
    hits = witness.hits()
    if len(hits) != case.hits:
        yield f"{len(hits)} requests reached the backend instead of {case.hits}"
    if not is_framed:
        yield "the next request on the connection was not answered as itself"


def _unrecorded(ids: list[str], witness: Witness) -> Iterator[str]:
    for each in ids:
        records = [kind for kind in witness.lines(each) if kind != "open"]
        if len(records) != 1:
            yield f"{len(records)} records instead of one"


def _is_framed(opened: Line, last: Reply) -> bool:
    """Return whether the connection is over, or answers the next request and no other."""
    if last.is_last:
        return opened.is_over()
    probed = opened.ask(_PROBE)
    return (probed.status, probed.body) == (200, b'{"status":"ok"}')


def leaks(gateway: Gateway) -> list[str]:
    """Return the files of journals and logs that hold the key of the attacks."""
    state, secret = gateway.stack.state, gateway.key.encode()
    files = [file for name in ("journal", "logs") for file in (state / name).rglob("*") if file.is_file()]
    assert files
    return [str(file.relative_to(state)) for file in files if secret in file.read_bytes()]

"""Read from authz what the backends say of themselves, and from Caddy what each has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from attrs import frozen

from authz.backends.backend import Described
from authz.backends.rendered import Stamp
from authz.stack import unix

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from authz.stack.folder import StateFolder


@frozen(kw_only=True)
class BackendState:
    """A backend with its work; None if Caddy does not answer. Failures are those since Caddy started."""

    backend: str
    is_live: bool
    version: str
    models: tuple[str, ...]
    loaded: tuple[str, ...]
    in_flight: int | None
    waiting: int | None
    failures: int | None


class _Described(msgspec.Struct):
    list: Stamp
    backends: tuple[Described, ...]


class _Work(msgspec.Struct):
    name: str
    in_flight: int
    waiting: int
    failures: int


def ask(deciders: Iterable[Path], control: Path) -> tuple[BackendState, ...] | None:
    """Ask the authz on these sockets, and Caddy; None if no authz answers."""
    answers = (_described(socket) for socket in deciders)
    described = next((answer for answer in answers if answer is not None), None)
    if described is None:
        return None
    seen = described.backends
    body = unix.get(control, "/backends")
    if body is None:
        return tuple(_joined(each, None) for each in seen)
    work = {each.name: each for each in msgspec.json.decode(body, type=list[_Work])}
    idle = _Work("", 0, 0, 0)
    return tuple(_joined(each, work.get(each.name, idle)) for each in seen)


def have_read(folder: StateFolder, stamp: Stamp) -> bool:
    """Return whether each authz that answers uses the list of this stamp."""
    answers = [_described(socket) for socket in folder.authz_sockets()]
    return all(answer is None or answer.list == stamp for answer in answers)


def _described(socket: Path) -> _Described | None:
    body = unix.get(socket, "/backends")
    return None if body is None else msgspec.json.decode(body, type=_Described)


def _joined(seen: Described, work: _Work | None) -> BackendState:
    return BackendState(
        backend=seen.name,
        is_live=seen.is_live,
        version=seen.version,
        models=seen.models,
        loaded=seen.loaded,
        in_flight=None if work is None else work.in_flight,
        waiting=None if work is None else work.waiting,
        failures=None if work is None else work.failures,
    )

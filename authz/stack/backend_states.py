"""Read from authz what the backends say of themselves, and from Caddy what each has to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from attrs import asdict, frozen

from authz.backends.backend import Described
from authz.stack import unix

if TYPE_CHECKING:
    from authz.stack.folder import StateFolder


@frozen(kw_only=True)
class BackendState(Described):
    """A backend with its work; None if Caddy does not answer. Failures are those since Caddy started."""

    in_flight: int | None = None
    waiting: int | None = None
    failures: int | None = None


class _Work(msgspec.Struct):
    name: str
    in_flight: int
    waiting: int
    failures: int


def ask(folder: StateFolder) -> tuple[BackendState, ...] | None:
    """Ask the authz and the Caddy of a stack; None if no authz answers."""
    described = unix.get(folder.authz_socket(0), "/backends") or unix.get(folder.authz_socket(1), "/backends")
    if described is None:
        return None
    seen = msgspec.json.decode(described, type=list[Described])
    body = unix.get(folder.control, "/backends")
    if body is None:
        return tuple(BackendState(**asdict(each)) for each in seen)
    work = {each.name: each for each in msgspec.json.decode(body, type=list[_Work])}
    idle = _Work("", 0, 0, 0)
    return tuple(_joined(each, work.get(each.name, idle)) for each in seen)


def _joined(seen: Described, work: _Work) -> BackendState:
    return BackendState(
        **asdict(seen), in_flight=work.in_flight, waiting=work.waiting, failures=work.failures
    )

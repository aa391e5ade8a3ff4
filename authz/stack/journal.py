"""Read from Caddy's control socket if it can write its journal, and what keeps records out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from attrs import frozen

from authz.stack import unix

if TYPE_CHECKING:
    from pathlib import Path


@frozen(kw_only=True)
class Journal:
    """All counts are since Caddy started, and ought to be 0.

    reopened: times that the file was not at its path, or was cut. records_by_guard: those that the access
    log did not carry; suspects name the directives that are likely at fault.
    """

    path: str
    is_open: bool
    reopened: int
    records_by_guard: int
    foreign_lines: int
    suspects: list[str]


def ask(control: Path) -> Journal | None:
    """Ask the Caddy that listens there; None if none does."""
    body = unix.get(control, "/journal")
    return None if body is None else msgspec.json.decode(body, type=Journal)

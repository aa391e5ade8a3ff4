"""What commands print for programs."""

from __future__ import annotations

from typing import Final

from authz.admin import app
from tests.authz.audited import functions

WITHOUT: Final = {
    "usage export": "it has --format, with JSON lines among its values",
    "audit prove": "its answer is JSON in any case",
}
"""Commands without --json, and why."""


def test_every_command_has_json() -> None:
    """Each command has --json, but for those that have another way to be read by programs."""
    without = set()
    for path in functions():
        command = app
        for name in path:
            command = command[name]
        options = {name for each in command.assemble_argument_collection() for name in each.names}
        if "--json" not in options:
            without.add(" ".join(path))
    assert WITHOUT.keys() == without

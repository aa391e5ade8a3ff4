"""Tables for people, JSON for programs."""

from __future__ import annotations

import re
import shlex
import sys
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs
import msgspec
from rich.bar import Bar
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from pathlib import Path

    from rich.console import RenderableType

T = TypeVar("T")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that could rewrite a terminal's screen; values come from clients and operators alike."""

BAR_CELLS: Final = 32


def show_json(value: object) -> None:
    """Print a value as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def show_table(
    rows: Sequence[Any],
    *,
    columns: Sequence[str],
    empty: str,
    bar: str | None = None,
    optional: Collection[str] = (),
) -> None:
    """Print frozen values as a table, one column per named attribute; `empty` if there are none.

    An `optional` column is left out where no row has a value, so that the others fit a terminal.
    `bar` names a number that a terminal shows as a bar beside each row.
    """
    console = Console(soft_wrap=True)
    if not rows:
        console.print(empty)
        return
    columns = [name for name in columns if name not in optional or any(getattr(row, name) for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        is_number = isinstance(getattr(rows[0], name), int)
        table.add_column(name.replace("_", " "), justify="right" if is_number else "left", overflow="fold")
    drawn = [getattr(row, bar) for row in rows] if bar and console.is_terminal else []
    longest = max([1, *drawn])
    for row, length in zip_longest(rows, drawn):
        cells: list[RenderableType] = [_cell(getattr(row, name)) for name in columns]
        if length is not None:
            cells.append(Bar(longest, 0, max(0, length), width=BAR_CELLS, color="cyan"))
        table.add_row(*cells)
    console.print(table)


def show_list(rows: Iterable[Any], *, columns: Sequence[str] | None = None) -> None:
    """Print frozen values as one JSON list, all of their attributes or those named."""
    if columns is None:
        show_json([attrs.asdict(row) for row in rows])
    else:
        show_json([{name: getattr(row, name) for name in columns} for row in rows])


def page(rows: Sequence[T], name: Callable[[T], object], *, limit: int) -> Sequence[T]:
    """Return as many rows as are wanted, and name on stderr the last one if there are more."""
    if len(rows) <= limit:
        return rows
    sys.stderr.write(f"There is more: go on with --after {shlex.quote(str(name(rows[limit - 1])))}\n")
    return rows[:limit]


def behind(rows: Sequence[T], name: Callable[[T], object], *, after: str | None) -> Sequence[T]:
    """Return the rows behind the one of a name. Raises CommandError if there is none."""
    if after is None:
        return rows
    names = [str(name(row)) for row in rows]
    if after not in names:
        raise CommandError(f"{after!r} is not in this list any more: begin without --after.")
    return rows[names.index(after) + 1 :]


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, (list, tuple)):
        return escape(_CONTROL.sub("?", ", ".join(map(str, value))))
    return escape(_CONTROL.sub("?", str(value)))


def show_value(value: Any) -> None:
    """Print a frozen value as one JSON object."""
    show_json(attrs.asdict(value))


def say(text: str) -> None:
    """Print a text as it is."""
    sys.stdout.write(text + "\n")


def show_state(sentence: str, *, killed: int, is_json: bool, **facts: str) -> None:
    """Say that a change is in force, and how many running requests it has ended."""
    if is_json:
        show_json({**facts, "killed": killed})
    else:
        say(sentence if not killed else f"{sentence} Ended {killed} running.")


def note_unsealed(path: Path, *, is_json: bool) -> None:
    """Say that no prompt can be kept yet, if this machine lacks the public key."""
    if not (is_json or path.exists()):
        say(f"Note: no prompt is kept before there is a public key in {path}: see `vault init`.")


def note_above(names: Sequence[str], *, is_json: bool) -> None:
    """Say which limits of a key its tenant's make unreachable."""
    if names and not is_json:
        listed = ", ".join(name.replace("_", " ") for name in names)
        say(f"Note: the tenant's limit is lower and still holds for {listed}.")

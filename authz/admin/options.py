"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from attrs import frozen
from cyclopts import Parameter

from authz.accounts.session import check_actor
from authz.errors import UsageError

State = Annotated[Path, Parameter(env_var="GATEWAY_STATE")]
Flag = Annotated[bool, Parameter(negative=())]
Json = Annotated[bool, Parameter(help="Print JSON for programs instead of text.", negative="")]
Kill = Annotated[bool, Parameter(help="Also end what runs right now.", negative="")]


MOST_ROWS: Final = 100_000


def _actor(_: object, text: str | None) -> None:
    """Check an --actor before the stores are opened. Raises UsageError."""
    if text is not None:
        check_actor(text)


@Parameter(name="*")
@frozen
class Options:
    """Take the options of every command that needs the stores."""

    state: Annotated[
        Path | None, Parameter(help="The stack's folder (default: GATEWAY_STATE, else .gateway).")
    ] = None
    json: Annotated[bool, Parameter(help="Print JSON for programs instead of a table.", negative="")] = False


def _limit(_: object, number: int) -> None:
    """Check a --limit. Raises UsageError."""
    if not 0 < number <= MOST_ROWS:
        raise UsageError(f"--limit {number} is out of range: give 1 to {MOST_ROWS}.")


Limit = Annotated[int, Parameter(help="How many rows at most.", validator=_limit)]
After = Annotated[
    str | None, Parameter(help="Go on behind this row, as the list before named it where there was more.")
]


@Parameter(name="*")
@frozen
class ListOptions(Options):
    """Take the options of every command that lists."""

    limit: Limit = 1000
    after: After = None


@Parameter(name="*")
@frozen
class ChangeOptions(Options):
    """Take the options of every command that the audit notes."""

    actor: Annotated[
        str | None,
        Parameter(help="Who asks for this, for the audit (default: the system user).", validator=_actor),
    ] = None

"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from attrs import frozen
from cyclopts import Parameter

from authz.accounts.session import check_actor

State = Annotated[Path, Parameter(env_var="GATEWAY_STATE")]
Flag = Annotated[bool, Parameter(negative=())]
Kill = Annotated[bool, Parameter(help="Also end what runs right now.", negative="")]


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


@Parameter(name="*")
@frozen
class ChangeOptions(Options):
    """Take the options of every command that the audit notes."""

    actor: Annotated[
        str | None,
        Parameter(help="Who asks for this, for the audit (default: the system user).", validator=_actor),
    ] = None

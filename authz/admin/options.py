"""The options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from attrs import frozen
from cyclopts import Parameter

State = Annotated[Path, Parameter(env_var="GATEWAY_STATE")]
Flag = Annotated[bool, Parameter(negative=())]
Kill = Annotated[bool, Parameter(help="Also end what runs right now.", negative="")]


@Parameter(name="*")
@frozen
class Options:
    """Take the options of every command that needs the stores.

    Args:
        state: The stack's folder (default: GATEWAY_STATE, else .gateway).
        json: Print JSON for programs instead of a table.
    """

    state: Path | None = None
    json: Annotated[bool, Parameter(negative="")] = False

"""The parameters that the commands of a stack share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

State = Annotated[Path, Parameter(env_var="GATEWAY_STATE")]
Flag = Annotated[bool, Parameter(negative=())]

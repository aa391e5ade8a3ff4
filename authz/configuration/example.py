"""The env file with every variable, its help, unit and default: `.env.example` is it without values."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Final

from authz.backends import env_file
from authz.configuration.variables import SECTIONS
from authz.types import GREATEST_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from authz.configuration.variables import Variable

_COLUMNS: Final = 100
_HEAD: Final = """\
# Settings of neuronetz-gateway: copy this file to .env, or let `neuronetz-gateway init` write that.
# Made by `neuronetz-gateway settings --example`. A line behind # shows the default.
# Compose and `just` read .env; `neuronetz-gateway settings` prints what is set, where, and what is wrong.
"""


def text(values: Mapping[str, str]) -> str:
    """Return the file, with these values set in place of their defaults."""
    return _HEAD + "".join(_section(name, variables, values) for name, variables in SECTIONS.items())


def _section(name: str, variables: tuple[Variable, ...], values: Mapping[str, str]) -> str:
    head = f"\n# ---- {name} ".ljust(_COLUMNS + 1, "-") + "\n"
    return head + "".join("\n" + "\n".join(_lines(variable, values)) + "\n" for variable in variables)


def _lines(variable: Variable, values: Mapping[str, str]) -> Iterator[str]:
    for line in (*wrap(variable.help, _COLUMNS - 2, break_on_hyphens=False), _facts(variable)):
        yield f"# {line}"
    if value := values.get(variable.name):
        yield env_file.line(variable.name, value)
    elif variable.is_required:
        yield f"{variable.name}="
    else:
        yield f"#{_assignment(variable.name, variable.default)}"


def _facts(variable: Variable) -> str:
    """Return the unit, the bounds and the readers of a variable, as sentences."""
    unit = f"In {variable.unit}" if variable.unit else ""
    if (bounds := variable.bounds) is not None:
        most = "or more" if bounds[-1] == GREATEST_COUNT else f"to {bounds[-1]}"
        unit = f"{unit or 'A number'}, {bounds[0]} {most}"
    readers = f"{'Required' if variable.is_required else 'Read'} by {', '.join(variable.readers)}."
    return f"{unit}. {readers}" if unit else readers


def _assignment(name: str, value: str) -> str:
    """Write an assignment, in quotes where a shell needs them."""
    is_plain = all(character.isalnum() or character in "./:-_" for character in value)
    return f"{name}={value}" if is_plain else env_file.line(name, value)

"""The command `settings`: what is set, by what, and all that is wrong with it."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz.admin import output
from authz.admin.options import Flag, Options
from authz.backends import env_file
from authz.configuration import example
from authz.configuration.report import report
from authz.errors import SettingsError


def settings_command(
    *,
    env: Annotated[Path, Parameter(help="The env file that Compose and `just` read.")] = Path(".env"),
    example_: Annotated[
        bool, Parameter(name="--example", negative="", help="Print .env.example instead.")
    ] = False,
    check: Annotated[Flag, Parameter(help="Print the problems only.")] = False,
    options: Options = Options(),
) -> int:
    """Print every setting: its value, its unit and where that comes from; exits 1 with all problems.

    A program is given its environment by what starts it; Compose and `just` add what the env file sets.

    Example: neuronetz-gateway settings --check
    """
    if example_:
        output.say(example.text({}).rstrip("\n"))
        return 0
    found = report(dict(os.environ), env_file.read(env), state=options.state)
    if options.json:
        output.show_value(found)
    elif not check:
        columns = ("setting", "value", "unit", "source")
        output.show_table(found.settings, columns=columns, empty="There are no settings.")
    for note in found.notes:
        sys.stderr.write(f"{note}\n")
    if found.problems:
        raise SettingsError("\n".join(found.problems))
    return 0

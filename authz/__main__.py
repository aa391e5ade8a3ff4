"""The console script: runs a command and turns a failure into one sentence and an exit code."""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError

from authz.admin import GROUPS, app
from authz.errors import CommandError, GatewayError, complaint
from authz.log import redacted

USAGE = 2
HELP = frozenset({"--help", "-h"})


def main() -> None:
    """Run the command line of this process; exits 0, 1 (refused or failed) or 2 (wrong usage)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        if not arguments or arguments[0] in GROUPS or not HELP.isdisjoint(arguments):
            _load_commands(app)
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _complain(GatewayError(f"{_first_line(error)} See `neuronetz-gateway --help`."), USAGE)
    except GatewayError as error:
        return _complain(error, error.exit_code if isinstance(error, CommandError) else 1)
    except KeyboardInterrupt:
        return 130
    return code if isinstance(code, int) else 0


def _load_commands(parent: App) -> None:
    """Import every command: a list of commands shows nothing about one that is not loaded."""
    for name, child in parent.resolved_commands().items():
        if not name.startswith("-"):
            _load_commands(child)


def _first_line(error: CycloptsError) -> str:
    return " ".join(str(error).split())


def _complain(error: GatewayError, code: int) -> int:
    sys.stderr.write(redacted(complaint(error)))
    return code


if __name__ == "__main__":
    main()

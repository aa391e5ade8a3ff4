"""The command `doctor`: what is wrong with a running deployment, and what to do."""

from __future__ import annotations

import os
from typing import Final

import attrs
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from authz import settings as settings_
from authz.admin import output
from authz.admin.options import Options
from authz.stack.doctor.checkup import examine
from authz.stack.doctor.finding import Finding, Level

_COLOURS: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


async def doctor_command(*, options: Options = Options()) -> int:
    """Check a running deployment and say what to do; the exit code is 1 if anything fails."""
    settings = settings_.load(os.environ, state=options.state)
    return _shown(await examine(settings), is_json=options.json)


def _shown(found: list[Finding], *, is_json: bool) -> int:
    is_healthy = all(finding.level is not Level.FAIL for finding in found)
    if is_json:
        output.show_json({"is_healthy": is_healthy, "findings": [attrs.asdict(each) for each in found]})
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in found:
            mark = f"[{_COLOURS[finding.level]}]{finding.level}[/]"
            table.add_row(mark, finding.check, escape(finding.sentence))
        Console().print(table)
    return 0 if is_healthy else 1

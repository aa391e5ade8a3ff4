"""The command `doctor`: what is wrong with a running deployment, and what to do."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Annotated, Final

import attrs
from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from authz import settings as settings_
from authz.accounts.session import opened
from authz.admin import output
from authz.admin.options import ChangeOptions
from authz.errors import UsageError
from authz.stack.doctor.checkup import examine
from authz.stack.doctor.finding import Finding, Level
from authz.stack.prove import proofs

_COLOURS: Final = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


async def doctor_command(
    *,
    prove: Annotated[
        bool, Parameter(help="Fire real requests at every rule, as a throw-away tenant.", negative="")
    ] = False,
    url: Annotated[
        str | None, Parameter(help="Of the gateway to prove; default the one that runs here.")
    ] = None,
    model: Annotated[
        str | None, Parameter(help="To prove with; default the smallest, a loaded one first.")
    ] = None,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Check a running deployment and say what to do; the exit code is 1 if anything fails.

    Example: neuronetz-gateway doctor --prove
    """
    if prove:
        # What ends a command in order is Ctrl-C: the tenant is disabled then, too.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
        async with opened(options.state, actor=options.actor) as session:
            return _shown(await proofs.prove(session, url=url, model=model), is_json=options.json)
    if url or model or options.actor:
        raise UsageError("--url, --model and --actor are for --prove alone: add it, or leave them out.")
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

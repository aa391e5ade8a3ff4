"""The stack on one machine: `status`, `logs` and `down` need nothing but its state folder."""

import sys
import time
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from authz.admin import facts, output
from authz.admin.facts import Facts
from authz.admin.flags import Flag, State
from authz.admin.folder import existing_folder
from authz.admin.overview import RUNNING, STOPPED, describe
from authz.admin.program import last_lines
from authz.errors import CommandError
from authz.settings import DEFAULT_STATE

_PROBE_TIMEOUT_S: Final = 3.0
_STOP_TIMEOUT_S: Final = 60.0
_LEFTOVER_S: Final = 20.0
_FOLLOW_S: Final = 0.2
_WINDOW_BYTES: Final = 1 << 20


def status(*, state: State = DEFAULT_STATE, json: Flag = False) -> int:
    """Show what runs; the exit code is 0 only when the gateway is ready.

    Args:
        state: The folder in which all of the stack lies.
        json: Print one JSON object for programs.
    """
    folder = existing_folder(state)
    known = facts.load_facts(folder)
    if known is None:
        message = f"No stack has run in {state}: start one with `neuronetz-gateway up`."
        raise CommandError(message)
    is_ready = facts.is_alive(known.supervisor) and _is_ready(known.url)
    if json:
        output.show_value(describe(folder, known, is_ready=is_ready))
    else:
        output.say(f"{known.url} is {'ready' if is_ready else 'not ready'}")
        Console().print(_table(known))
    return 0 if is_ready else 1


def logs(
    names: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    *,
    state: State = DEFAULT_STATE,
    lines: int = 20,
    follow: Flag = False,
) -> int:
    """Print the last lines of what the processes wrote.

    Args:
        names: Only these, such as `caddy`, `authz-0` or `postgres`.
        state: The folder in which all of the stack lies.
        lines: How many lines of each.
        follow: Go on with what they write from now on, until Ctrl-C.
    """
    folder = existing_folder(state)
    files = {path.stem: path for path in sorted(folder.logs.glob("*.log"))}
    if unknown := [name for name in names if name not in files]:
        message = f"There is no log {unknown[0]}: choose from {', '.join(files)}."
        raise CommandError(message)
    chosen = {name: files[name] for name in names or files}
    ends = {name: path.stat().st_size for name, path in chosen.items()}
    with suppress(KeyboardInterrupt):
        for name, path in chosen.items():
            for line in last_lines(path, count=lines, window_bytes=_WINDOW_BYTES):
                sys.stdout.write(f"{name} | {line}\n")
        while follow:
            _write_new(chosen, ends)
            time.sleep(_FOLLOW_S)
    return 0


def down(*, state: State = DEFAULT_STATE) -> int:
    """Stop the gateway that runs in a state folder; its data stays.

    Args:
        state: The folder in which all of the stack lies.
    """
    folder = existing_folder(state)
    known = facts.load_facts(folder)
    is_running = known is not None and facts.is_alive(known.supervisor)
    if known is not None:
        facts.end([known.supervisor], timeout_s=_STOP_TIMEOUT_S)
    # Read again: what it stopped on its way out is gone from its facts.
    last = facts.load_facts(folder)
    facts.end(last.processes if last else (), timeout_s=_LEFTOVER_S)
    output.say("stopped" if is_running else f"nothing was running in {state}")
    return 0


def _write_new(chosen: dict[str, Path], ends: dict[str, int]) -> None:
    for name, path in chosen.items():
        with path.open("rb") as file:
            file.seek(ends[name])
            new = file.read()
        ends[name] += len(new)
        for line in new.decode(errors="replace").splitlines():
            sys.stdout.write(f"{name} | {line}\n")
    sys.stdout.flush()


def _is_ready(url: str) -> bool:
    # Not httpx, whose import takes longer than all the rest of this command.
    connection = HTTPConnection(urlsplit(url).netloc, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _table(known: Facts) -> Table:
    table = Table("process", "pid", "state", box=None, pad_edge=False)
    for process in known.processes:
        alive = facts.is_alive(process)
        state = f"[green]{RUNNING}[/]" if alive else f"[red]{STOPPED}[/]"
        table.add_row(process.name, str(process.pid), state)
    return table

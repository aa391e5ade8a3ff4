"""The stack on one machine: `status`, `logs` and `down` need nothing but its state folder.

`status` also describes a gateway in containers or under systemd, by its sockets.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from authz import settings
from authz.admin import output
from authz.admin.options import Flag, State
from authz.errors import CommandError
from authz.settings import DEFAULT_STATE
from authz.stack import facts
from authz.stack.backend_states import BackendState
from authz.stack.bill import Bill
from authz.stack.facts import Facts
from authz.stack.folder import StateFolder, existing_folder
from authz.stack.journal import Journal
from authz.stack.overview import RUNNING, STOPPED, Children, Status, describe, describe_services
from authz.stack.program import last_lines

_STOP_TIMEOUT_S: Final = 60.0
_LEFTOVER_S: Final = 20.0
_FOLLOW_S: Final = 0.2
_WINDOW_BYTES: Final = 1 << 20


def status(*, state: State = DEFAULT_STATE, json: Flag = False) -> int:
    """Show what runs and how far the bill is; the exit code is 0 only when the gateway is ready.

    Example: neuronetz-gateway status --json

    Args:
        state: The folder in which all of the stack lies.
        json: Print one JSON object for programs.
    """
    known, found = _found(state)
    code = 0 if found.ready else 1
    if json:
        output.show_value(found)
        return code
    output.say(f"{found.url or 'The gateway'} is {'ready' if found.ready else 'not ready'}")
    tables = (
        _table(known) if known else _service_table(found.states),
        _bill_table(found.bill),
        _journal_table(found.journal),
        _backend_table(found.backends),
    )
    Console().print(*tables, sep="\n")
    for model in found.untabled:
        output.say(f"Prompts of {model.model} count a token a byte, {model.digest[:12]}: {model.problem}.")
    return code


def logs(
    names: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    *,
    state: State = DEFAULT_STATE,
    lines: int = 20,
    follow: Flag = False,
    json: Flag = False,
) -> int:
    """Print the last lines of what the processes wrote.

    Example: neuronetz-gateway logs caddy authz-0 --lines 100 --follow

    Args:
        names: Only these, such as `caddy`, `authz-0` or `postgres`.
        state: The folder in which all of the stack lies.
        lines: How many lines of each.
        follow: Go on with what they write from now on, until Ctrl-C.
        json: Print each line as a JSON object for programs, with what it says parsed if that is JSON.
    """
    folder = existing_folder(state, instead="`docker compose logs` or `journalctl` shows those of services")
    files = {path.stem: path for path in sorted(folder.logs.glob("*.log"))}
    if unknown := [name for name in names if name not in files]:
        message = f"There is no log {unknown[0]}: choose from {', '.join(files)}."
        raise CommandError(message)
    chosen = {name: files[name] for name in names or files}
    ends = {name: path.stat().st_size for name, path in chosen.items()}
    with suppress(KeyboardInterrupt):
        for name, path in chosen.items():
            for line in last_lines(path, count=lines, window_bytes=_WINDOW_BYTES):
                _write_line(name, line, is_json=json)
        while follow:
            _write_new(chosen, ends, is_json=json)
            time.sleep(_FOLLOW_S)
    return 0


def down(*, state: State = DEFAULT_STATE, json: Flag = False) -> int:
    """Stop the gateway that runs in a state folder; its data stays.

    Example: neuronetz-gateway down

    Args:
        state: The folder in which all of the stack lies.
        json: Print one JSON object for programs.
    """
    folder = existing_folder(state)
    known = facts.load_facts(folder)
    is_running = known is not None and facts.is_alive(known.supervisor)
    stopped = [each.name for each in known.processes if facts.is_alive(each)] if known else []
    if known is not None:
        facts.end([known.supervisor], timeout_s=_STOP_TIMEOUT_S)
    # Read again: what it stopped on its way out is no longer in its facts.
    last = facts.load_facts(folder)
    facts.end(last.processes if last else (), timeout_s=_LEFTOVER_S)
    if json:
        output.show_json({"folder": str(folder.path), "stopped": stopped})
    else:
        output.say("stopped" if is_running else f"nothing was running in {state}")
    return 0


def _write_new(chosen: dict[str, Path], ends: dict[str, int], *, is_json: bool) -> None:
    """Write the whole lines that are new; what has no end yet waits for it."""
    for name, path in chosen.items():
        with path.open("rb") as file:
            file.seek(ends[name])
            whole, newline, _ = file.read().rpartition(b"\n")
        ends[name] += len(whole + newline)
        for line in whole.decode(errors="replace").split("\n") if newline else ():
            _write_line(name, line, is_json=is_json)
    sys.stdout.flush()


def _write_line(name: str, line: str, *, is_json: bool) -> None:
    """Write a line of a log; for programs with what it says as an object, if it is one."""
    if not is_json:
        sys.stdout.write(f"{name} | {line}\n")
        return
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.MsgspecError:
        output.show_json({"process": name, "text": line})
    else:
        output.show_json({"process": name, "fields": fields})


def _found(state: Path) -> tuple[Facts | None, Status]:
    """Ask the stack that `up` has started in a folder, else the one whose stores the environment names."""
    if not StateFolder(state.absolute()).version.exists() and settings.names_stores(os.environ):
        return None, describe_services(settings.load(os.environ, state=state))
    folder = existing_folder(state)
    known = facts.load_facts(folder)
    if known is None:
        message = f"No stack has run in {state}: start one with `neuronetz-gateway up`."
        raise CommandError(message)
    return known, describe(folder, known)


def _service_table(states: Children[str]) -> Table:
    """Draw what answers; whoever runs it knows the processes."""
    table = Table("process", "state", box=None, pad_edge=False)
    named = {"caddy": states.caddy, "metering": states.metering}
    named |= {f"authz-{index}": state for index, state in enumerate(states.authz)}
    for name, state in named.items():
        table.add_row(name, f"[green]{RUNNING}[/]" if state == RUNNING else f"[red]{STOPPED}[/]")
    return table


def _table(known: Facts) -> Table:
    table = Table("process", "pid", "state", box=None, pad_edge=False)
    for process in known.processes:
        alive = facts.is_alive(process)
        state = f"[green]{RUNNING}[/]" if alive else f"[red]{STOPPED}[/]"
        table.add_row(process.name, str(process.pid), state)
    return table


def _bill_table(found: Bill | None) -> Table:
    """Draw the bill; what should be 0 is red when it is not."""
    table = Table("bill", "", box=None, pad_edge=False)
    if found is None:
        table.add_row("unknown", "metering does not answer: `neuronetz-gateway logs metering` says why")
        return table
    behind = "unknown" if found.lag_s is None else f"{found.lag_s:.1f} s"
    table.add_row(
        "behind", f"{behind}, {_count(found.lag_bytes)} bytes, {_count(found.unpublished)} unpublished"
    )
    table.add_row("open requests", _count(found.open_requests))
    table.add_row(
        "learned", f"of {_count(found.learned_models)} models, see `neuronetz-gateway learned list`"
    )
    wrongs = {
        "orphaned requests": found.orphaned_requests,
        "lost lines": found.lost_lines,
        "dead letters": found.dead_letters,
        "overrun tokens": found.overrun_tokens,
        "drift in tokens": found.drift_tokens,
    }
    for name, count in wrongs.items():
        table.add_row(name, f"[red]{_count(count)}[/]" if count else _count(count))
    return table


def _journal_table(written: Journal | None) -> Table:
    """Draw the journal; what should be 0 is red when it is not, and the likely cause stands below it."""
    table = Table("journal", "", box=None, pad_edge=False)
    if written is None:
        table.add_row("unknown", "Caddy does not answer: `neuronetz-gateway logs caddy` says why")
        return table
    table.add_row("state", "open" if written.is_open else "[red]closed: every request is refused[/]")
    wrongs = {"moved, removed or cut": written.reopened, "records by the guard": written.records_by_guard}
    for name, count in wrongs.items():
        table.add_row(name, f"[red]{count:,}[/]" if count else f"{count:,}")
    for suspect in written.suspects:
        table.add_row("look at", suspect)
    return table


def _backend_table(found: tuple[BackendState, ...] | None) -> Table:
    """Draw the backends; failures are red, and so is one that does not answer."""
    columns = ("backend", "state", "version", "models", "loaded", "in flight", "waiting", "failures")
    table = Table(*columns, box=None, pad_edge=False)
    if found is None:
        table.add_row("unknown", "authz does not answer: `neuronetz-gateway logs authz-0` says why")
        return table
    for backend in found:
        failures = _count(backend.failures)
        table.add_row(
            backend.backend,
            "[green]answers[/]" if backend.is_live else "[red]away[/]",
            backend.version,
            f"{len(backend.models):,}",
            ", ".join(backend.loaded) or "none",
            _count(backend.in_flight),
            _count(backend.waiting),
            f"[red]{failures}[/]" if backend.failures else failures,
        )
    return table


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"

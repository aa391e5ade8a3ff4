"""Commands about backends: add, remove, list, probe, and render Caddy's snippets of them."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

from attrs import asdict, frozen
from cyclopts import Parameter

from authz.admin import output
from authz.admin.options import After, Flag, Json, Limit, State
from authz.backends import backend as backend_
from authz.backends.address import is_link_local
from authz.backends.backend import Backend
from authz.backends.probe import Probed, probe
from authz.errors import CommandError, SettingsError, UsageError
from authz.forms import HIDDEN
from authz.settings import DEFAULT_STATE
from authz.stack import backend_list, machine
from authz.stack.backend_list import EnvFile

Name = Annotated[str, Parameter(help="The backend's name: lower-case letters, digits and '-'.")]
EnvPath = Annotated[
    Path | None,
    Parameter(name="--write-env", help="Write the line into this env file instead of printing it."),
]
DryRun = Annotated[bool, Parameter(name="--dry-run", negative="", help="Show the line, and write nothing.")]
_STDIN: Final = Path("-")


@frozen
class Listed:
    """A backend as people see it."""

    backend: str
    url: str
    token: str | None
    header: str | None
    scheme: str | None
    max_in_flight: int | None


def listed(backends: Iterable[Backend]) -> list[Listed]:
    """Return backends as people may see them."""
    return [
        Listed(each.name, each.url, HIDDEN, each.header, each.scheme, each.max_in_flight)
        if each.token
        else Listed(each.name, each.url, None, None, None, each.max_in_flight)
        for each in backends
    ]


async def add_backend_command(
    name: Name,
    url: Annotated[str, Parameter(help="Its base URL: http://gpu:11434, https://host/prefix, unix:///path.")],
    *,
    token: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="The token it wants; see --token-file.")
    ] = None,
    token_file: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="A file with the token, which no shell keeps; - is standard input.",
        ),
    ] = None,
    header: Annotated[str, Parameter(help="The header that carries the token.")] = "Authorization",
    scheme: Annotated[str, Parameter(help="What stands before the token; '' for nothing.")] = "Bearer",
    max_in_flight: Annotated[
        int | None, Parameter(help="How many requests it gets at a time; the others wait, fairly by tenant.")
    ] = None,
    replace: Annotated[bool, Parameter(negative="", help="Change the backend of this name.")] = False,
    no_validate: Annotated[
        bool, Parameter(negative="", help="Don't ask it whether it is an Ollama.")
    ] = False,
    allow_link_local: Annotated[
        bool, Parameter(negative="", help="Accept a link-local or cloud metadata address.")
    ] = False,
    write_env: EnvPath = None,
    dry_run: DryRun = False,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> int:
    """Probe a backend, then print the OLLAMA_BACKENDS line with it, or write it in place.

    A stack that runs in --state uses what --write-env has written at once, and drops no stream.

    Example: neuronetz-gateway add-backend gpu http://gpu:11434 --token-file token --write-env .env
    """
    new = backend_.checked(Backend(name, url, _token(token, token_file), header, scheme, max_in_flight))
    file = EnvFile.read(write_env) if write_env else None
    before = backend_list.current(os.environ, state, file)
    after = backend_.added(before, new, is_replacement=replace)
    if not allow_link_local:
        _refuse_link_local(new, is_resolved=not no_validate)
    if not no_validate:
        _refuse_problem(await probe(new))
    return await _finish(after, state, file, is_dry_run=dry_run, is_json=json)


async def remove_backend_command(
    name: Name,
    *,
    write_env: EnvPath = None,
    dry_run: DryRun = False,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> int:
    """Print the OLLAMA_BACKENDS line without a backend, or write it in place.

    Example: neuronetz-gateway remove-backend gpu --write-env .env
    """
    file = EnvFile.read(write_env) if write_env else None
    after = backend_.removed(backend_list.current(os.environ, state, file), name)
    return await _finish(after, state, file, is_dry_run=dry_run, is_json=json)


def list_backends_command(
    *, limit: Limit = 1000, after: After = None, state: State = DEFAULT_STATE, json: Flag = False
) -> int:
    """List the backends in their order; tokens as ***.

    Example: neuronetz-gateway list-backends
    """
    found = listed(backend_list.current(os.environ, state))
    rest = output.behind(found, lambda row: row.backend, after=after)
    rows = output.page(rest, lambda row: row.backend, limit=limit)
    if json:
        output.show_list(rows)
    else:
        empty = "No backend yet: add one with `neuronetz-gateway add-backend NAME URL`."
        output.show_table(
            rows, columns=("backend", "url", "token", "header", "scheme", "max_in_flight"), empty=empty
        )
    return 0


async def probe_ollama_command(
    name: Annotated[str | None, Parameter(help="Only this backend.")] = None,
    *,
    state: State = DEFAULT_STATE,
    json: Flag = False,
) -> int:
    """Ask each backend for its version and models, as Caddy would; exit code 1 if one can't serve.

    Example: neuronetz-gateway probe-ollama gpu
    """
    backends = backend_list.current(os.environ, state)
    chosen = backends if name is None else (backend_.found(backends, name),)
    if not chosen:
        raise SettingsError("There is no backend to probe: set OLLAMA_BACKENDS or OLLAMA_URL.")
    rows = await asyncio.gather(*map(probe, chosen))
    if json:
        output.show_list(rows)
    else:
        output.show_table(rows, columns=("backend", "url", "problem", "version", "models"), empty="")
    return 1 if any(row.problem for row in rows) else 0


async def render_command(
    *,
    force: Annotated[bool, Parameter(negative="", help="Overwrite snippets that were edited.")] = False,
    state: State = DEFAULT_STATE,
    json: Json = False,
) -> int:
    """Make Caddy's snippets of OLLAMA_BACKENDS, and let the stack in --state use them if it runs.

    Without one they go to the folder GATEWAY_BACKENDS, for a Caddy that starts later.

    Example: neuronetz-gateway render
    """
    folder, is_applied = await backend_list.render(os.environ, state, is_forced=force)
    if json:
        output.show_json({"folder": str(folder), "is_applied": is_applied})
        return 0
    output.say(f"{folder} follows OLLAMA_BACKENDS{' and Caddy uses it' if is_applied else ''}.")
    return 0


async def _finish(
    after: tuple[Backend, ...], state: Path, file: EnvFile | None, *, is_dry_run: bool, is_json: bool
) -> int:
    """Print the line or write it; what is not ready to paste shows no token."""
    is_used = False if file is None or is_dry_run else await backend_list.use(after, state, file)
    line = backend_list.line(after, is_redacted=is_dry_run or file is not None)
    if is_json:
        written = [] if file is None or is_dry_run else [str(file.path)]
        show_change(after, line=line, written=written, is_applied=is_used)
        return 0
    output.say(line)
    if is_dry_run:
        _note("Nothing was written.")
    elif file is not None:
        _note(
            f"{file.path} is written, and the running stack uses it."
            if is_used
            else f"{file.path} is written: `neuronetz-gateway render` or the next start puts it to use."
        )
    elif any(backend.token for backend in after):
        _note("The line holds tokens: paste it where only you read it, or use --write-env.")
    return 0


def show_change(
    backends: Iterable[Backend], *, line: str, written: list[str], is_applied: bool, **facts: object
) -> None:
    """Print for programs what the list of backends is now, the line of it, and where that stands."""
    rows = [asdict(each) for each in listed(backends)]
    output.show_json({"backends": rows, "line": line, "written": written, "is_applied": is_applied, **facts})


def _note(sentence: str) -> None:
    """Write beside the output that programs read."""
    sys.stderr.write(f"{sentence}\n")


def _token(token: str | None, file: Path | None) -> str | None:
    if token is not None and file is not None:
        raise UsageError("--token and --token-file can't both be given: take --token-file.")
    if token is not None:
        machine.cover_argument(token)
        return token
    if file is None:
        return None
    try:
        text = sys.stdin.read() if file == _STDIN else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The token can't be read from {file}: name a text file with it alone.") from error
    return text.strip()


def _refuse_link_local(new: Backend, *, is_resolved: bool) -> None:
    """Refuse an address where clouds hand out credentials; names are looked up where a probe follows."""
    address = new.address
    hosts = [address.host]
    if address.socket is None:
        flags = 0 if is_resolved else socket.AI_NUMERICHOST
        try:
            found = socket.getaddrinfo(address.host, None, type=socket.SOCK_STREAM, flags=flags)
            hosts += [str(entry[4][0]).partition("%")[0] for entry in found]
        except OSError:
            pass  # an unknown name is for the probe to report
    if any(map(is_link_local, hosts)):
        raise CommandError(
            f"{new.url} is a link-local or cloud metadata address: if an Ollama really is there, "
            "add --allow-link-local."
        )


def _refuse_problem(probed: Probed) -> None:
    if probed.problem is not None:
        raise CommandError(
            f"The backend {probed.backend} at {probed.url} {probed.problem}: "
            "start or correct it, or add it unseen with --no-validate. Nothing was written."
        )

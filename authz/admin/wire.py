"""One command that makes a Compose project's gateway use every Ollama container of the machine."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz.admin import output
from authz.admin.backends import show_change
from authz.admin.options import Json
from authz.backends import env_file
from authz.stack import backend_list, wiring


async def wire_multi_backend_command(
    *,
    env: Annotated[Path, Parameter(help="The env file of the Compose project.")] = Path(".env"),
    url: Annotated[str, Parameter(help="Where the gateway answers on this machine.")] = "http://127.0.0.1",
    dry_run: Annotated[
        bool, Parameter(name="--dry-run", negative="", help="Show the line, and change nothing.")
    ] = False,
    json: Json = False,
) -> int:
    """Find the running ollama/ollama containers, write OLLAMA_BACKENDS, and recreate the gateway.

    The one on an internal network comes first; a container that shares no network with the gateway is
    attached to `proxy`. Whatever fails before the env file is written leaves it as it was.

    Example: neuronetz-gateway wire-multi-backend --dry-run
    """
    docker, file = wiring.read(os.environ, env)
    gateway, found = wiring.find(docker)
    _note_lost(file, {backend.name for backend in found.backends})
    line = backend_list.line(found.backends, is_redacted=True)
    if json and dry_run:
        show_change(found.backends, line=line, written=[], is_applied=False, attached=found.attached)
        return 0
    if not json:
        output.say(line)
    if dry_run:
        for name in found.attached:
            sys.stderr.write(f"{name} would be attached to the network proxy.\n")
        sys.stderr.write("Nothing was changed.\n")
        return 0
    wiring.attach(docker, found)
    env_file.write(file.path, file.holding(found.backends).text, expected=file.text)
    await wiring.restart(docker, gateway, url.rstrip("/"))
    if json:
        facts = {"attached": found.attached, "probed": wiring.probed(docker)}
        show_change(found.backends, line=line, written=[str(file.path)], is_applied=True, **facts)
    else:
        wiring.show(docker)
    return 0


def _note_lost(file: backend_list.EnvFile, names: set[str]) -> None:
    """Name the backends that the file lists now and no container is."""
    for backend in backend_list.parse(file.values()):
        if backend.name not in names:
            sys.stderr.write(f"{backend.name} at {backend.url} is no container, and leaves the list.\n")

"""The command `init`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz.admin import output
from authz.admin.options import Flag, Json
from authz.configuration.initial import initialise


def init_command(
    *,
    domain: Annotated[str | None, Parameter(help="The name by which clients reach the gateway.")] = None,
    write_env: Annotated[
        Path, Parameter(help="The env file; the secrets lie in the folder `secrets` beside it.")
    ] = Path(".env"),
    force: Annotated[Flag, Parameter(help="Put the domain in place of the one that the file has.")] = False,
    json: Json = False,
) -> int:
    """Write .env, secrets/pepper and secrets/postgres_password, each where there is none.

    A secret that exists is never replaced: keys and the database depend on it.

    Example: neuronetz-gateway init --domain gw.example.com
    """
    made = initialise(write_env, domain=domain, is_forced=force)
    if json:
        written, kept = ([str(path) for path in paths] for paths in (made.written, made.kept))
        output.show_json({"written": written, "kept": kept, "notes": made.left})
        return 0
    for word, paths in (("written", made.written), ("kept", made.kept)):
        for path in paths:
            output.say(f"{word}  {path}")
    for sentence in made.left:
        output.say(sentence)
    return 0

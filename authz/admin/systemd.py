"""The command `systemd`."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz.admin import output
from authz.admin.options import Json
from authz.stack import units
from authz.stack.build import caddy_binary, caddy_config


def systemd_command(
    *,
    out: Annotated[Path | None, Parameter(help="The folder to write them to, else they are printed.")] = None,
    user: Annotated[str, Parameter(help="The system user that all of it runs as.")] = units.USER,
    caddy: Annotated[
        Path | None, Parameter(help="Our Caddy, by default the one that `up` would run.")
    ] = None,
    json: Json = False,
) -> int:
    """Render hardened units of systemd, for a gateway without containers: authz, metering, Caddy.

    Settings and secrets lie in /etc/neuronetz-gateway, as `init --write-env /etc/neuronetz-gateway/.env`
    writes them; the journal in /var/lib/neuronetz-gateway, the sockets in /run/neuronetz-gateway.

    Example: neuronetz-gateway systemd --out units
    """
    binary = caddy or caddy_binary(os.environ, lambda _: None)
    config = caddy_config()
    rendered = units.render(caddy=binary.absolute(), caddyfile=config, user=user)
    notes = [
        f"Services see no home: move {path}, such as to /opt, before they start."
        for path in units.hidden(Path(sys.executable), binary, config)
    ]
    if out is not None:
        units.write(rendered, out)
    if json:
        written = [] if out is None else [str(out / name) for name in rendered]
        output.show_json({"units": rendered, "written": written, "notes": notes})
        return 0
    for note in notes:
        sys.stderr.write(f"Note: {note}\n")
    if out is None:
        for name, text in rendered.items():
            output.say(f"# ---- {name}\n{text}")
        return 0
    output.say(f"{len(rendered)} units are in {out}: `systemctl enable --now neuronetz-gateway.target`.")
    return 0

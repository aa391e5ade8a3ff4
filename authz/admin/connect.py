"""A user's command: serve a gateway on this machine, for programs that can't send a key."""

from __future__ import annotations

import os
import socket
import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from authz import secret_file
from authz.admin import output
from authz.backends import address as address_
from authz.errors import CommandError, UsageError
from authz.identity.secrets import handle, is_well_formed
from authz.stack.local_proxy import LocalProxy, is_loopback

KEY_VARIABLE = "GATEWAY_KEY"

Url = Annotated[str, Parameter(help="The gateway: https://gw.example.com.")]
KeyFile = Annotated[
    Path | None, Parameter(help=f"A file with the key alone; default {KEY_VARIABLE}, else a prompt.")
]
Origins = Annotated[
    tuple[str, ...], Parameter(help="A site whose pages may ask, repeatable: https://app.example.com.")
]
AllowHttp = Annotated[bool, Parameter(help="Send the key unencrypted, in a network of yours.", negative="")]

_VISIBLE = (
    "A key in the command line can be seen by everybody on this machine, so revoke it: "
    f"write a new one into a file and name that by --key-file, or set {KEY_VARIABLE}."
)
_OTHER_HOST = "write an address of this machine's loopback, like 127.0.0.1 or ::1."


async def connect_command(
    url: Url,
    *,
    key_file: KeyFile = None,
    host: Annotated[str, Parameter(help="The loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port; the default is Ollama's own.")] = 11434,
    origin: Origins = (),
    allow_http: AllowHttp = False,
    json: Annotated[bool, Parameter(help="Print JSON for programs instead of text.", negative="")] = False,
    key: Annotated[str | None, Parameter(show=False)] = None,
) -> int:
    """Serve a gateway on this machine alone, and add the key to each request.

    Programs that can't send a key then ask it as a local Ollama. No setting and no store is needed.

    Example: neuronetz-gateway connect https://gw.example.com --key-file key
    """
    if key is not None or "@" in url or "nz_" in url:
        raise UsageError(_VISIBLE)
    address = _address(url, allow_http=allow_http)
    if not is_loopback(host):
        raise UsageError(f"--host {host} would let others use the key: {_OTHER_HOST}")
    secret = _key(key_file)
    listener = _listen(host, port)
    with listener:
        proxy = LocalProxy(address, secret, origins=frozenset(origin))
        await proxy.check()
        shown = address_.Address("http", host, listener.getsockname()[1]).base
        if json:
            output.show_json({"url": shown, "gateway": address.base, "prefix": handle(secret)})
        else:
            output.say(f"OLLAMA_HOST={shown}  # {address.base} with the key {handle(secret)}; Ctrl-C ends it")
        sys.stdout.flush()
        await proxy.serve(listener)
    return 0


def _address(url: str, *, allow_http: bool) -> address_.Address:
    address = address_.read(url if "//" in url else f"https://{url}", "connect")
    if address.socket:
        raise UsageError(f"{url} is a socket of this machine: write a URL like https://gw.example.com.")
    if address.scheme == "http" and not (allow_http or is_loopback(address.host)):
        raise UsageError(
            f"{address.base} would get the key unencrypted: write https://, or add --allow-http."
        )
    return address


def _key(file: Path | None) -> str:
    """Return the key of a file, of the environment or of a person at the terminal."""
    if file is not None:
        where, found = str(file), secret_file.read("--key-file", file, is_group_trusted=False)
    elif found := os.environ.get(KEY_VARIABLE, ""):
        where = KEY_VARIABLE
    elif sys.stdin.isatty():
        where, found = "What was typed", getpass("Key: ")
    else:
        raise UsageError(f"There is no key: name a file with it by --key-file, or set {KEY_VARIABLE}.")
    if not is_well_formed(found.strip()):
        raise UsageError(f"{where} is no key of a gateway: one begins with nz_ and has 49 characters.")
    return found.strip()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise CommandError(
            f"{host}:{port} can't be used ({getattr(error, 'strerror', None) or error}): stop what "
            "listens there, maybe an Ollama, or choose another with --port."
        ) from error

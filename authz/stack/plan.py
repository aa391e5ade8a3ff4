"""Plan our own processes: argument vector, environment, and time to end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from authz.errors import CommandError
from authz.stack.build import caddy_config
from authz.stack.program import Layer, Program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authz.backends.backend import Backend
    from authz.settings import Settings
    from authz.stack.folder import StateFolder

_DRAIN_S: Final = 5
"""The time that Caddy gives idle connections: clients' libraries keep them no longer."""
_GRACE_S: Final = 10
"""The time that Caddy then gives running streams before it ends them itself."""
UVICORN: Final = (
    # uvicorn would import from the current folder first, whatever Python's -P says.
    *("--app-dir", str(Path(__file__).parents[2])),
    *(
        "--factory",
        "authz.app:create",
        "--http",
        "authz.protocol:Protocol",
        "--loop",
        "uvloop",
        "--ws",
        "none",
    ),
    *("--no-proxy-headers", "--no-server-header", "--no-access-log", "--log-level", "warning"),
    # Longer than Caddy keeps an idle connection, so that Caddy never writes into a closed one.
    *("--timeout-keep-alive", "75"),
)
_LISTS: Final = frozenset({"OLLAMA_BACKENDS", "OLLAMA_URL"})
_PASSED_TO_CADDY: Final = frozenset({"HOME", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TZ"})


def service_environ(folder: StateFolder, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of authz and metering: the caller's settings, and this folder.

    Which backends there are is read from the folder, where it may change while they run.
    """
    ours = {"GATEWAY_STATE": str(folder.path), "GATEWAY_BACKENDS": str(folder.backends)}
    return {name: value for name, value in environ.items() if name not in _LISTS} | ours


def authz_program(folder: StateFolder, index: int, environ: Mapping[str, str]) -> Program:
    """One authz process on a socket of its own."""
    arguments = ("--uds", str(folder.authz_socket(index)), *UVICORN)
    return _python(folder, f"authz-{index}", ("uvicorn", *arguments), environ)


def metering_program(folder: StateFolder, environ: Mapping[str, str]) -> Program:
    """Return the one metering process of this stack's journal."""
    return _python(folder, "metering", ("metering",), environ)


def demo_program(folder: StateFolder, backend: Backend, environ: Mapping[str, str]) -> Program:
    """Return the built-in backend, for machines without Ollama."""
    port = urlsplit(backend.url).port
    return _python(folder, "demo", ("authz.stack.demo", "--port", str(port)), environ)


def caddy_environ(
    folder: StateFolder, port: int, chosen: Settings, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return what the Caddyfile asks for; none of the secrets that Python is given."""
    sockets = (folder.authz_socket(index) for index in range(chosen.authz_processes))
    return {
        "GATEWAY_BIND": "127.0.0.1",
        **{name: value for name, value in environ.items() if _is_for_caddy(name)},
        "GATEWAY_AUTHZ": " ".join(f'"unix/{socket}"' for socket in sockets),
        "GATEWAY_BACKENDS": str(folder.backends),
        "GATEWAY_CONTROL": str(folder.control),
        "GATEWAY_DRAIN": f"{_DRAIN_S}s",
        "GATEWAY_GRACE": f"{_GRACE_S}s",
        "GATEWAY_JOURNAL": str(chosen.journal),
        "GATEWAY_PROMPTS": str(chosen.prompts),
        "GATEWAY_PROMPT_KEY": str(chosen.prompt_key),
        "GATEWAY_RUN": str(folder.run),
        "GATEWAY_TABLES": str(chosen.tables),
        "GATEWAY_SITE": f"http://:{port}",
        "XDG_CONFIG_HOME": str(folder.path),
        "XDG_DATA_HOME": str(folder.path),
    }


def caddy_program(folder: StateFolder, binary: Path, environ: Mapping[str, str]) -> Program:
    """Caddy in front of everything."""
    return Program(
        name="caddy",
        argv=(str(binary), "run", *_caddy_config()),
        log=folder.logs / "caddy.log",
        layer=Layer.EDGE,
        environ=environ,
        grace_s=_DRAIN_S + _GRACE_S + 5,
    )


async def validate_caddy(binary: Path, environ: Mapping[str, str]) -> None:
    """Let Caddy say what is wrong with its configuration; `caddy run` would end without a word."""
    process = await asyncio.create_subprocess_exec(
        str(binary),
        "validate",
        *_caddy_config(),
        env=environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    if process.returncode != 0:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2]
        sentence = f"Caddy refuses its configuration, correct it or the snippets: {_message(last)}"
        raise CommandError(sentence)


def _message(line: str) -> str:
    """Return what a line of Caddy's log says: it is JSON where the configuration sets its format."""
    try:
        return msgspec.json.decode(line, type=_Line).msg
    except msgspec.DecodeError:
        return line


class _Line(msgspec.Struct):
    msg: str


def _caddy_config() -> tuple[str, ...]:
    return ("--config", str(caddy_config()), "--adapter", "caddyfile")


def _is_for_caddy(name: str) -> bool:
    return name in _PASSED_TO_CADDY or name.startswith(("GATEWAY_", "OTEL_"))


def _python(folder: StateFolder, name: str, module: tuple[str, ...], environ: Mapping[str, str]) -> Program:
    return Program(
        name=name,
        argv=(sys.executable, "-P", "-m", *module),
        log=folder.logs / f"{name}.log",
        layer=Layer.SERVICE,
        environ=environ,
    )

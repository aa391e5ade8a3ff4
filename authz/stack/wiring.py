"""Find the Ollama containers of this machine, and make the gateway of a Compose project use them.

Everything that can fail is done before the env file is touched; the same again gives the same line.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Final

import httpx
import msgspec
from attrs import field, frozen

from authz.backends import containers
from authz.backends.backend import VARIABLE
from authz.backends.containers import PROXY, Container, Wiring
from authz.errors import CommandError
from authz.stack.backend_list import URL, EnvFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_COMMAND_S: Final = 300
_HEALTHY_S: Final = 120.0
_POLL_S: Final = 0.25
EDGE: Final = "caddy"
"""The service that reaches the backends."""
DECIDER: Final = "authz-0"
"""The service in which the commands run that ask the backends."""
_WITHIN: Final = ("exec", "--no-TTY", DECIDER, "neuronetz-gateway")


@frozen
class Docker:
    """The docker command, for the Compose project of one folder."""

    program: str
    project: Path
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def find(cls, environ: Mapping[str, str], project: Path) -> Docker:
        """Find it on the PATH. The list must come from the env file, so the environment's is left out."""
        program = shutil.which("docker", path=environ.get("PATH", os.defpath))
        if program is None:
            raise CommandError("There is no docker on the PATH: install it, or run this where it is.")
        passed = {name: value for name, value in environ.items() if name not in {VARIABLE, URL}}
        return cls(program, project, passed)

    def run(self, *arguments: str, is_shown: bool = False) -> bytes:
        """Run a docker command; return what it printed, unless that is shown. Raises CommandError."""
        try:
            done = subprocess.run(
                [self.program, *arguments],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=None if is_shown else subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=_COMMAND_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandError(f"docker {arguments[0]} could not be run: {error}.") from error
        if done.returncode != 0:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "it printed no reason"
            raise CommandError(f"docker {' '.join(arguments[:4])} failed: {last}")
        return done.stdout or b""

    def compose(self, *arguments: str, is_shown: bool = False) -> bytes:
        """Run a command of Compose on the project."""
        return self.run("compose", "--project-directory", str(self.project), *arguments, is_shown=is_shown)

    def running(self) -> tuple[Container, ...]:
        """Inspect every running container, in the order in which docker lists them."""
        ids = self.run("ps", "--quiet", "--no-trunc").decode().split()
        return containers.parse(self.run("inspect", *ids)) if ids else ()

    def edges(self) -> list[str]:
        """Return the ids of the running containers of the gateway that reach the backends."""
        return self.compose("ps", "--quiet", "--no-trunc", EDGE).decode().split()

    def gateway(self, running: tuple[Container, ...]) -> Container:
        """Return the gateway's container that reaches the backends."""
        ids = self.edges()
        for container in running:
            if container.id in ids:
                return container
        raise CommandError(
            f"The gateway's container {EDGE} does not run: start it with `docker compose up --detach`."
        )


def read(environ: Mapping[str, str], env: Path) -> tuple[Docker, EnvFile]:
    """Find docker and read the env file, which must be there."""
    docker = Docker.find(environ, env.absolute().parent)
    if not env.exists():
        raise CommandError(f"There is no {env}: run this in the folder of compose.yaml and its .env.")
    return docker, EnvFile.read(env)


def find(docker: Docker) -> tuple[Container, Wiring]:
    """Find the gateway and the backends. Raises CommandError with what to do where one is missing."""
    running = docker.running()
    gateway = docker.gateway(running)
    return gateway, containers.wire(running, gateway)


def attach(docker: Docker, wiring: Wiring) -> None:
    """Attach the backends that the gateway could not reach."""
    for name in wiring.attached:
        docker.run("network", "connect", PROXY, name)


async def restart(docker: Docker, gateway: Container, url: str) -> None:
    """Recreate what the env file changes, and wait until the gateway answers.

    Caddy goes on with its streams and reads its snippets again; one that was recreated has read them, and
    would be ended by the signal before it expects it.
    """
    docker.compose("up", "--detach")
    if gateway.id in docker.edges():
        docker.compose("kill", "--signal", "SIGUSR1", EDGE)
    give_up = time.monotonic() + _HEALTHY_S
    async with httpx.AsyncClient(trust_env=False, timeout=2.0) as client:
        while time.monotonic() < give_up:
            try:
                answer = await client.get(f"{url}/healthz")
            except httpx.HTTPError:
                pass
            else:
                if answer.is_success or answer.is_redirect:  # to https, which is as good a sign
                    return
            await asyncio.sleep(_POLL_S)
    raise CommandError(
        f"The gateway does not answer {url}/healthz within {_HEALTHY_S:.0f} s: "
        "`docker compose logs` says why."
    )


def show(docker: Docker) -> None:
    """Probe and list the backends from within, where their names are known."""
    for command in ("probe-ollama", "list-backends"):
        docker.compose(*_WITHIN, command, is_shown=True)


def probed(docker: Docker) -> list[dict[str, Any]]:
    """Return what `probe-ollama --json` says from within."""
    printed = docker.compose(*_WITHIN, "probe-ollama", "--json")
    try:
        return msgspec.json.decode(printed, type=list[dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise CommandError(
            f"probe-ollama in {DECIDER} printed no JSON: is its image of a release before?"
        ) from error

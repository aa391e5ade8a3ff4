"""Gateways on machines of their own: Caddy, authz and metering, as a service manager runs them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from attrs import evolve, frozen

from authz import settings as settings_
from authz.settings import Settings
from authz.stack import machine as system
from authz.stack import plan
from authz.stack.build import SOURCE, caddy_binary
from authz.stack.facts import Facts
from authz.stack.folder import StateFolder, make_folder
from authz.stack.program import Program
from authz.stack.supervisor import Supervisor, myself
from tests.chaos.evidence import Lines
from tests.scale.certificates import Authority
from tests.scale.network import Machine
from tests.up.stacks import Stack, answers, inherited, until

PORT: Final = 443
_LISTENS: Final = "\tbind {$GATEWAY_BIND:127.0.0.1}\n"


@frozen
class Node:
    """One gateway."""

    machine: Machine
    folder: StateFolder
    settings: Settings
    supervisor: Supervisor

    @property
    def url(self) -> str:
        """Return where clients reach it."""
        return f"https://{self.machine.address}"

    def kill(self, name: str) -> None:
        """End a part as a crash would, and wait until it is gone; its supervisor starts it again."""
        pid = self._pid(name)
        since = system.started(pid)
        os.kill(pid, signal.SIGKILL)
        until(lambda: system.started(pid) != since)

    async def replace(self, name: str) -> None:
        """End a part in order, and let its successor start."""
        await self.supervisor.replace(name)

    def boot(self) -> str:
        """Return which boot of Caddy writes the journal now."""
        lines = Lines()
        lines.read(self.settings.journal)
        return str(lines.boots[-1])

    def _pid(self, name: str) -> int:
        return next(process.pid for process in self.supervisor.facts.processes if process.name == name)


@asynccontextmanager
async def running(
    machines: tuple[Machine, ...], authority: Authority, environ: Mapping[str, str]
) -> AsyncIterator[tuple[Node, ...]]:
    """Start a gateway on each of these machines; stores and pepper, which settings name, are the same."""
    nodes: list[Node] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            for machine in machines:
                node = await _started(machine, authority, environ, tasks)
                nodes.append(node)
            for node in nodes:
                await asyncio.to_thread(until, partial(answers, f"{node.url}/readyz"))
            yield tuple(nodes)
            _end()
    except* _Over:
        pass
    finally:  # once nobody starts again what ends
        for node in nodes:
            await node.supervisor.stop()


class _Over(Exception):
    """Nobody looks after the processes any more."""


def _end() -> NoReturn:
    raise _Over


async def _started(
    machine: Machine, authority: Authority, environ: Mapping[str, str], tasks: asyncio.TaskGroup
) -> Node:
    folder = make_folder(machine.folder / "state")
    given = {**inherited(), **environ}
    chosen = settings_.load(given, state=folder.path)
    stack = Stack(folder.path, within=machine.within)
    for command in ("migrate", "render"):
        done = await asyncio.to_thread(stack.run, command, **environ)
        assert done.returncode == 0, done.stderr
    supervisor = Supervisor(folder, Facts(url="", supervisor=myself()), lambda _: None, tasks)
    for program in _programs(machine, folder, chosen, authority, given):
        await supervisor.start(evolve(program, argv=(*machine.within, *program.argv)))
    return Node(machine, folder, chosen, supervisor)


def _programs(
    machine: Machine, folder: StateFolder, chosen: Settings, authority: Authority, given: Mapping[str, str]
) -> tuple[Program, ...]:
    services = plan.service_environ(folder, given)
    site = {"GATEWAY_SITE": f"https://{machine.address}", "GATEWAY_BIND": machine.address}
    edge = plan.caddy_environ(folder, PORT, chosen, given) | site
    config = _config(folder.path, machine, authority)
    caddy = plan.caddy_program(folder, caddy_binary(os.environ, lambda _: None), edge)
    return (
        *(plan.authz_program(folder, index, services) for index in range(chosen.authz_processes)),
        plan.metering_program(folder, services),
        evolve(caddy, argv=(*caddy.argv[:2], "--config", str(config), "--adapter", "caddyfile")),
    )


def _config(folder: Path, machine: Machine, authority: Authority) -> Path:
    """Return the Caddyfile with one change: a certificate of this run's authority."""
    certificate = authority.certificate(machine.address, machine.folder)
    text = (SOURCE / "Caddyfile").read_text()
    assert 1 == text.count(_LISTENS)
    changed = folder / "Caddyfile"
    changed.write_text(text.replace(_LISTENS, f"{_LISTENS}\ttls {certificate.shown} {certificate.key}\n"))
    return changed

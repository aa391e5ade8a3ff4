"""Give a changed list of backends to a stack that runs: no stream is cut, no process restarted.

A new backend reaches Caddy before authz names it in a Grant; one that is removed is no longer named by
authz before Caddy forgets it. A token alone needs no reload: Caddy reads its file with each request.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Final

import httpx
from attrs import frozen

from authz.backends.rendered import Rendered
from authz.errors import CommandError
from authz.stack import backend_states, facts, machine, plan, snippets
from authz.stack.folder import StateFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from authz.stack.facts import Process
    from authz.stack.snippets import Change

_RELOADED_S: Final = 30.0
_FOLLOWED_S: Final = 10.0
_POLL_S: Final = 0.05
_GRANT_S: Final = 2.0
"""How old a Grant may be when the tap takes it."""
_SUCCESS: Final = re.compile(r"^caddy_config_last_reload_successful (\S+)$", re.MULTILINE)
_SUCCESS_AT: Final = re.compile(r"^caddy_config_last_reload_success_timestamp_seconds (\S+)$", re.MULTILINE)


@frozen
class Running:
    """A stack's Caddy: the process, and the environment that its Caddyfile is read in."""

    folder: StateFolder
    caddy: Process
    binary: Path
    environ: Mapping[str, str]

    async def validate(self, change: Change) -> None:
        """Let Caddy read a change before anything is written. Raises CommandError."""
        with snippets.staged(change) as staged:
            await plan.validate_caddy(self.binary, {**self.environ, "GATEWAY_BACKENDS": str(staged)})

    async def apply(self, change: Change) -> None:
        """Put a change in place and wait for Caddy to confirm it; else put everything back."""
        try:
            if change.removes:
                change.write_list()
                await self._followed()
                await asyncio.sleep(_GRANT_S)
            change.write_snippets()
            if change.needs_reload:
                await self._reload()
            change.tidy()
            change.write_list()
            await self._followed()
        except CommandError:
            change.undo()
            raise

    async def _followed(self) -> None:
        """Wait until every authz uses the list: with an old token it would find a backend away."""
        stamp = Rendered(self.folder.backends).stamp()
        give_up = time.monotonic() + _FOLLOWED_S
        while not await asyncio.to_thread(backend_states.have_read, self.folder, stamp):
            if time.monotonic() > give_up:
                raise CommandError(
                    "authz did not take the new list of backends, so the old one is back: "
                    "`neuronetz-gateway logs authz-0` says why."
                )
            await asyncio.sleep(_POLL_S)

    async def _reload(self) -> None:
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self.folder.control)), base_url="http://control"
        ) as control:
            before = await _reloads(control)
            os.kill(self.caddy.pid, signal.SIGUSR1)
            give_up = time.monotonic() + _RELOADED_S
            while time.monotonic() < give_up:
                is_good, at_s = await _reloads(control)
                if is_good and at_s > before[1]:
                    return
                if not is_good and before[0]:
                    break
                await asyncio.sleep(_POLL_S)
        raise CommandError(
            "Caddy did not take the new configuration, so the old snippets are back: "
            "`neuronetz-gateway logs caddy` says why."
        )


def running(state: Path) -> Running | None:
    """Return the Caddy of the stack in a folder, None if none runs there."""
    folder = StateFolder(state.absolute())
    known = facts.load_facts(folder)
    for process in known.processes if known else ():
        if process.name == "caddy" and facts.is_alive(process):
            return _of_process(folder, process)
    return None


def _of_process(folder: StateFolder, caddy: Process) -> Running:
    """Read from the process what it runs with, since `up` may have been given other settings than we."""
    try:
        executable, environ = machine.program_of(caddy.pid)
    except OSError as error:
        raise CommandError(
            f"The stack in {folder.path} belongs to another user ({error.strerror}): run this as that user."
        ) from error
    return Running(folder, caddy, executable, environ)


async def _reloads(control: httpx.AsyncClient) -> tuple[bool, float]:
    """Return whether the last load succeeded, and when one did."""
    try:
        text = (await control.get("/metrics")).text
    except httpx.HTTPError:
        return True, 0.0  # its socket passes from the old configuration to the new
    good, at_s = _SUCCESS.search(text), _SUCCESS_AT.search(text)
    return bool(good and float(good[1])), float(at_s[1]) if at_s else 0.0

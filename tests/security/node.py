"""A second Caddy of a gateway: over TLS as well as without it, with a journal and metering of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import httpx
from attrs import frozen

from authz import settings
from authz.stack import plan
from authz.stack.build import SOURCE, caddy_binary
from authz.stack.discovery import free_port
from authz.stack.folder import StateFolder
from tests.gateway import Gateway
from tests.up.stacks import inherited, until

NAME: Final = "localhost"
"""Caddy's own authority signs for this name only; the site answers to every Host."""
GLOBALS: Final = "auto_https disable_redirects\n\tlocal_certs\n\tskip_install_trust\n\tadmin off"
"""Global options of a Caddy that signs for itself, and changes nothing of this machine."""


@frozen
class Node:
    """Where it listens, and its journal."""

    port: int
    tls_port: int
    journal: Path


@contextmanager
def node(gateway: Gateway) -> Iterator[Node]:
    """Run a node beside that of the gateway, in a folder of its own below the gateway's state."""
    folder = gateway.stack.state / "node"
    folder.mkdir()
    started = Node(free_port(), free_port(), folder / "journal.log")
    chosen = {
        **inherited(),
        "GATEWAY_JOURNAL": str(started.journal),
        "GATEWAY_METRICS_SOCKET": str(folder / "metering.sock"),
    }
    with _caddy(gateway, started, folder, chosen), _metering(gateway, folder, chosen):
        with httpx.Client(base_url=f"http://127.0.0.1:{started.port}") as client:
            until(lambda: _serves(client, gateway.key))
        yield started


@contextmanager
def _caddy(gateway: Gateway, started: Node, folder: Path, chosen: dict[str, str]) -> Iterator[None]:
    state = StateFolder(gateway.stack.state)
    text = (SOURCE / "Caddyfile").read_text()
    assert 1 == text.count("admin off")
    (folder / "Caddyfile").write_text(text.replace("admin off", GLOBALS))
    own = {
        "GATEWAY_CONTROL": str(folder / "control.sock"),
        "GATEWAY_SITE": f"http://:{started.port}, https://{NAME}:{started.tls_port}, https://:{started.tls_port}",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    given = plan.caddy_environ(state, 0, settings.load(chosen, state=state.path), chosen) | own
    argv = [str(caddy_binary(os.environ, lambda _: None)), "run", "--config", str(folder / "Caddyfile")]
    yield from _running(argv, folder / "caddy.out", given)


@contextmanager
def _metering(gateway: Gateway, folder: Path, chosen: dict[str, str]) -> Iterator[None]:
    given = plan.service_environ(StateFolder(gateway.stack.state), chosen)
    yield from _running([sys.executable, "-m", "metering"], folder / "metering.out", given)


def _running(argv: list[str], log: Path, given: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as file, subprocess.Popen(argv, env=given, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.terminate()


def _serves(client: httpx.Client, key: str) -> bool:
    """Return whether authz takes the node's requests: it must have committed its boot line first."""
    with suppress(httpx.TransportError):
        headers = {"Authorization": f"Bearer {key}"}
        return client.get("/v1/models", headers=headers).is_success
    return False

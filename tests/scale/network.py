"""Machines of a small data centre: network namespaces on one bridge, which end with this process."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import field, frozen

NETWORK: Final = ipaddress.ip_network("10.77.0.0/24")
HERE: Final = str(NETWORK[1])
"""The address of this process: clients and backends are here."""

_INSIDE: Final = "GATEWAY_SCALE_NETWORK"
_BRIDGE: Final = "machines"
_NEEDED: Final = ("ip", "nsenter", "openssl", "setpriv", "unshare")


class Unfit(Exception):
    """This machine lacks something; the message says what to do."""


def enter() -> None:
    """Run this program again in a network of its own, unless it is in one. Raises Unfit."""
    if missing := [name for name in _NEEDED if shutil.which(name) is None]:
        raise Unfit(f"There is no {' and no '.join(missing)}: install iproute2, openssl and util-linux.")
    if _INSIDE in os.environ:
        return
    if subprocess.run(("unshare", "--net", "true"), check=False, capture_output=True).returncode:
        raise Unfit("Networks of its own need root: run this recipe as root.")
    os.environ[_INSIDE] = "1"
    os.execvp("unshare", ("unshare", "--net", *sys.orig_argv))


@frozen
class Machine:
    """One machine: a command that begins with `within` runs on it."""

    name: str
    address: str
    folder: Path
    _holder: subprocess.Popen[bytes] = field(repr=False)

    @property
    def within(self) -> tuple[str, ...]:
        """Return the prefix that runs a command on this machine."""
        return ("nsenter", f"--net=/proc/{self._holder.pid}/ns/net")

    def server(self, *argv: object, user: int = 0) -> tuple[str, ...]:
        """Return the command of a server on this machine, which ends with the thread that starts it."""
        as_user = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig=KILL")
        return (*self.within, *as_user, *map(str, argv))

    def run(self, *argv: object) -> None:
        """Run a command on it to its end."""
        subprocess.run((*self.within, *map(str, argv)), check=True, capture_output=True)

    def cut_off(self) -> None:
        """Pull its cable: what it sends and what it is sent goes nowhere, and nobody is told."""
        _ip("link", "set", self.name, "down")


@contextmanager
def machines(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Machine]]:
    """Lay a cable to each of these machines."""
    _ip("link", "set", "lo", "up")
    _ip("link", "add", _BRIDGE, "type", "bridge")
    _ip("address", "add", f"{HERE}/{NETWORK.prefixlen}", "dev", _BRIDGE)
    _ip("link", "set", _BRIDGE, "up")
    found: dict[str, Machine] = {}
    try:
        for number, name in enumerate(names, start=11):
            found[name] = _machine(folder / name, str(NETWORK[number]))
        yield found
    finally:
        for machine in found.values():
            machine._holder.kill()
            machine._holder.wait()


def _machine(folder: Path, address: str) -> Machine:
    folder.mkdir()
    # It says a word once it has its namespace, and ends when its input does, with this process.
    holder = subprocess.Popen(
        ("unshare", "--net", "sh", "-c", "echo; exec cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    made = Machine(folder.name, address, folder, holder)
    _ip("link", "add", made.name, "type", "veth", "peer", "name", "eth0", "netns", holder.pid)
    _ip("link", "set", made.name, "master", _BRIDGE, "up")
    made.run("ip", "address", "add", f"{address}/{NETWORK.prefixlen}", "dev", "eth0")
    for device in ("lo", "eth0"):
        made.run("ip", "link", "set", device, "up")
    return made


def _ip(*arguments: object) -> None:
    subprocess.run(("ip", *map(str, arguments)), check=True)

"""Caddy: its version, and the proxies of the configuration that runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from authz.stack import unix
from authz.stack.doctor.finding import Finding, fail, ok, summed

if TYPE_CHECKING:
    from pathlib import Path

OLDEST: Final = (2, 11, 7)
CHECK: Final = "caddy"
_VERSION: Final = re.compile(r"v(\d+)\.(\d+)\.(\d+)")


class Site(msgspec.Struct, frozen=True):
    """A server of the configuration; without hosts it answers to any name."""

    listen: tuple[str, ...]
    hosts: tuple[str, ...]
    is_tls: bool
    is_guarded: bool


class Proxy(msgspec.Struct, frozen=True):
    """A reverse_proxy, and the last of our handlers that every request has passed before it."""

    listen: tuple[str, ...]
    behind: str
    asks_authz: bool
    dials: tuple[str, ...]


class Running(msgspec.Struct, frozen=True):
    """The configuration that runs (caddy/running.go)."""

    version: str
    sites: tuple[Site, ...]
    proxies: tuple[Proxy, ...]


def gather(control: Path) -> Running | None:
    """Ask the Caddy that listens there; None if none does, or it is older than the question."""
    body = unix.get(control, "/config")
    return None if body is None else msgspec.json.decode(body, type=Running)


def judge(running: Running | None, control: Path) -> list[Finding]:
    """Judge the version, and look for ways to a backend past the guard and the tap."""
    if running is None:
        sentence = f"No Caddy answers at {control}: start it, or name its socket in GATEWAY_CONTROL."
        return [fail(CHECK, sentence)]
    return [*_of_version(running.version), *_of_proxies(running, str(control.parent))]


def _of_version(version: str) -> list[Finding]:
    numbers = _VERSION.match(version)
    if numbers is None:
        return [ok(CHECK, f"It runs, of a version of its own ({version}).")]
    if tuple(map(int, numbers.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return [fail(CHECK, f"Caddy {version} is too old: build it anew, with {oldest} or newer.")]
    return [ok(CHECK, f"Caddy {numbers[0]} runs.")]


def _of_proxies(running: Running, sockets: str) -> list[Finding]:
    if not any(site.is_guarded for site in running.sites):
        return [fail("guard", "No site has a `gateway_guard`: run Caddy with the gateway's Caddyfile.")]
    authz = {dial for proxy in running.proxies if proxy.asks_authz for dial in proxy.dials}
    found = []
    for proxy in running.proxies:
        strange = [dial for dial in proxy.dials if not _may_be_dialed(proxy, dial, authz, sockets)]
        if strange:
            missing = "gateway_tap" if proxy.behind == "guard" else "gateway_guard"
            sentence = (
                f"On {', '.join(proxy.listen)} a reverse_proxy leads to {', '.join(strange)} "
                f"without a `{missing}` before it: remove it from the Caddyfile or the snippets, and reload."
            )
            found.append(fail("guard", sentence))
    count = sum(proxy.behind == "tap" for proxy in running.proxies)
    return summed("guard", found, f"Each proxy to a backend ({count}) is behind the guard and the tap.")


def _may_be_dialed(proxy: Proxy, dial: str, authz: set[str], sockets: str) -> bool:
    """Behind the tap a backend; behind the guard authz; before it the metrics of our own processes."""
    if proxy.behind == "tap":
        return True
    if proxy.behind == "guard":
        return dial in authz
    return dial.startswith(f"unix/{sockets}/")

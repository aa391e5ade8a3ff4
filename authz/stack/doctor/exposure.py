"""Backends that can be reached around the gateway: every limit and every bill ends there."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.stack import machine
from authz.stack.doctor.finding import Finding, summed, warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from authz.backends.backend import Backend

CHECK: Final = "backends"

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@frozen(kw_only=True)
class Reach:
    """A backend, the addresses of its host, and where this machine listens for others on its port."""

    name: str
    url: str
    is_plain: bool
    has_token: bool
    addresses: tuple[IPAddress, ...]
    open_on: tuple[IPAddress, ...]


def gather(backend: Backend) -> Reach:
    """Resolve a backend; where it is on this machine, look which addresses its port is open on."""
    where = backend.address
    port = where.port or (443 if where.scheme == "https" else 80)
    found = () if where.socket else _resolved(where.host, port)
    is_here = any(map(_is_own, found))
    return Reach(
        name=backend.name,
        url=backend.url,
        is_plain=where.scheme == "http" and not where.socket,
        has_token=backend.token is not None,
        addresses=found,
        open_on=tuple(_listening(port)) if is_here else (),
    )


def _resolved(host: str, port: int) -> tuple[IPAddress, ...]:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers)


def _is_own(address: IPAddress) -> bool:
    """Return whether an address is this machine's: only such a one can be bound."""
    family = socket.AF_INET if isinstance(address, ipaddress.IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def _listening(port: int) -> Iterable[IPAddress]:
    """Yield the addresses, loopback apart, on which something listens at a port."""
    for packed in machine.listening(port):
        if not (found := ipaddress.ip_address(packed)).is_loopback:
            yield found


def judge(reached: Sequence[Reach]) -> list[Finding]:
    """Judge how each backend can be reached."""
    found = []
    for backend in reached:
        if public := [
            str(address) for address in backend.addresses if address.is_global and backend.is_plain
        ]:
            sentence = (
                f"{backend.name} ({backend.url}) is at the public address {public[0]} in plain HTTP: put TLS "
                "and a token before it, or reach it through a private network."
            )
            found.append(warn(CHECK, sentence))
        if backend.open_on and not backend.has_token:
            where = ", ".join(sorted({str(address) for address in backend.open_on}))
            sentence = (
                f"{backend.name} ({backend.url}) wants no token and listens on {where}, so others can use it "
                "past every limit: let it listen on 127.0.0.1 (OLLAMA_HOST), or close the port."
            )
            found.append(warn(CHECK, sentence))
    if not reached:
        return [warn(CHECK, "None is set: add one with `neuronetz-gateway add-backend NAME URL`.")]
    return summed(CHECK, found, f"None of {len(reached)} is open to others, as far as can be seen from here.")

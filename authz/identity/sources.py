"""Limit wrong keys per source and in all: beyond that they are refused before Postgres is asked.

Only secrets that Postgres has denied count. Guesses at the secret of one key, which its handle names, count
for themselves: they never stand in the way of another key at the same address.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

BURST: Final = 30
PER_S: Final = 1.0
REMEMBERED: Final = 10_000

V6_PREFIXES: Final = ((64, 1), (48, 4))
"""The prefixes that one subscriber and one site usually own, and how many sources each counts as."""

EVERYBODY: Final = ("everybody", 10)
"""All sources together, in a world where each new address is free, and as how many sources they count."""


class Sources:
    """Counts wrong keys per source: a bucket of 30 that drains by one a second (GCRA), times its weight."""

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def may_try(self, ip: str, *, handle: str | None = None) -> bool:
        """Return whether a source may try one more secret, of this handle or of an unknown one."""
        now_s = self._now_s()
        return all(
            self._empty_at.get(name, 0.0) - now_s < (BURST * weight - 0.5) / (PER_S * weight)  # sums round
            for name, weight in _counted(ip, handle)
        )

    def failed(self, ip: str, *, handle: str | None = None) -> None:
        """Count a secret that Postgres has denied."""
        now_s = self._now_s()
        for name, weight in _counted(ip, handle):
            self._empty_at[name] = max(self._empty_at.get(name, 0.0), now_s) + 1 / (PER_S * weight)
            self._empty_at.move_to_end(name)
            if len(self._empty_at) > REMEMBERED:
                self._empty_at.popitem(last=False)


def _counted(ip: str, handle: str | None) -> tuple[tuple[str, int], ...]:
    """Return what an attempt is counted by."""
    of_ip = sources(ip)
    return (*of_ip, EVERYBODY) if handle is None else tuple((f"{handle} {name}", n) for name, n in of_ip)


def source(ip: str) -> str:
    """Return the narrowest source of an address, which refusals are counted by."""
    return sources(ip)[0][0]


def sources(ip: str) -> tuple[tuple[str, int], ...]:
    """Return the sources of an address with their weights: itself, or its /64 and /48 in IPv6.

    All invalid addresses are one source.
    """
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return (("", 1),)
    address = getattr(address, "ipv4_mapped", None) or address
    if isinstance(address, IPv4Address):
        return ((str(address), 1),)
    return tuple((str(ip_network((address, length), strict=False)), weight) for length, weight in V6_PREFIXES)

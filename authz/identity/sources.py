"""Limit wrong keys per source: one that tries many is refused before Postgres is asked.

Only secrets that Postgres has denied count, so valid keys behind the same address work on until then.
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


class Sources:
    """Counts wrong keys per source: a bucket of 30 that drains by one a second (GCRA), times its weight."""

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def may_try(self, ip: str) -> bool:
        """Return whether a source may try another secret that is not known."""
        now_s = self._now_s()
        return all(
            self._empty_at.get(name, 0.0) - now_s <= (BURST * weight - 1) / (PER_S * weight)
            for name, weight in sources(ip)
        )

    def failed(self, ip: str) -> None:
        """Count a secret that Postgres does not know."""
        now_s = self._now_s()
        for name, weight in sources(ip):
            self._empty_at[name] = max(self._empty_at.get(name, 0.0), now_s) + 1 / (PER_S * weight)
            self._empty_at.move_to_end(name)
            if len(self._empty_at) > REMEMBERED:
                self._empty_at.popitem(last=False)


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

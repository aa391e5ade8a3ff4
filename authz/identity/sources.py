"""Limit wrong keys per source: one that tries many is refused before Postgres is asked.

Only secrets that this process does not know count, so a valid key behind the same address works on.
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

V6_PREFIX: Final = 64
"""The prefix that one subscriber usually owns."""


class Sources:
    """Counts wrong keys per source: a bucket of 30 that drains by one a second (GCRA)."""

    def __init__(self, *, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def may_try(self, ip: str) -> bool:
        """Return whether a source may try another secret that is not known."""
        return self._empty_at.get(source(ip), 0.0) - self._now_s() <= (BURST - 1) / PER_S

    def failed(self, ip: str) -> None:
        """Note that a source tries a secret that is not known here."""
        name = source(ip)
        self._empty_at[name] = max(self._empty_at.get(name, 0.0), self._now_s()) + 1 / PER_S
        self._empty_at.move_to_end(name)
        if len(self._empty_at) > REMEMBERED:
            self._empty_at.popitem(last=False)

    def forgive(self, ip: str) -> None:
        """Take back the last note: the secret was valid after all."""
        name = source(ip)
        if name in self._empty_at:
            self._empty_at[name] -= 1 / PER_S


def source(ip: str) -> str:
    """Return the source of an address: itself in IPv4, its /64 in IPv6, one for all invalid ones."""
    try:
        address = ip_address(ip.partition("%")[0])
    except ValueError:
        return ""
    address = getattr(address, "ipv4_mapped", None) or address
    if isinstance(address, IPv4Address):
        return str(address)
    return str(ip_network((address, V6_PREFIX), strict=False))

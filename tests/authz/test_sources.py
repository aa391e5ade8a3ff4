"""Wrong keys, counted per source."""

from __future__ import annotations

import pytest

from authz.identity.sources import BURST, REMEMBERED, Sources, source
from tests.authz.test_queue import Clock


def test_a_source_is_slowed_down_and_recovers() -> None:
    """Thirty wrong keys at once, then one a second."""
    clock = Clock()
    sources = Sources(now_s=clock)
    tries = 0
    while sources.may_try("203.0.113.9"):
        sources.failed("203.0.113.9")
        tries += 1
    assert BURST == tries
    clock.now_s = 1.0
    assert sources.may_try("203.0.113.9")
    sources.failed("203.0.113.9")
    assert not sources.may_try("203.0.113.9")
    assert sources.may_try("203.0.113.10")


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("junk", ""),
    ],
)
def test_source(ip: str, expected: str) -> None:
    """An IPv4 address is a source; of IPv6 its /64 is."""
    assert expected == source(ip)


def test_a_valid_key_costs_its_source_nothing() -> None:
    """A secret is noted before it is looked up, so that many at once count; a valid one is taken back."""
    sources = Sources(now_s=Clock())
    for _ in range(BURST * 2):
        assert sources.may_try("203.0.113.9")
        sources.failed("203.0.113.9")
        sources.forgive("203.0.113.9")
    sources.forgive("198.51.100.1")
    assert sources.may_try("198.51.100.1")


def test_memory_is_bounded() -> None:
    """However many sources try, only so many are remembered."""
    sources = Sources(now_s=Clock())
    for number in range(REMEMBERED + 5):
        sources.failed(f"2001:db8:{number // 65536:x}:{number % 65536:x}::1")
    assert REMEMBERED == len(sources._empty_at)

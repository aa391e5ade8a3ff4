"""Wrong keys, counted per source."""

from __future__ import annotations

import pytest

from authz.identity.sources import BURST, EVERYBODY, REMEMBERED, Sources, source, sources
from tests.authz.test_queue import Clock


def test_a_source_is_slowed_down_and_recovers() -> None:
    """Thirty wrong keys at once, then one a second."""
    clock = Clock()
    counted = Sources(now_s=clock)
    tries = 0
    while counted.may_try("203.0.113.9"):
        counted.failed("203.0.113.9")
        tries += 1
    assert BURST == tries
    clock.now_s = 1.0
    assert counted.may_try("203.0.113.9")
    counted.failed("203.0.113.9")
    assert not counted.may_try("203.0.113.9")
    assert counted.may_try("203.0.113.10")


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("203.0.113.9", ["203.0.113.9"]),
        ("::ffff:203.0.113.9", ["203.0.113.9"]),
        ("2001:db8:1:2:3:4:5:6", ["2001:db8:1:2::/64", "2001:db8:1::/48"]),
        ("fe80::1%eth0", ["fe80::/64", "fe80::/48"]),
        ("junk", [""]),
    ],
)
def test_sources(ip: str, expected: list[str]) -> None:
    """An IPv4 address is a source; of IPv6 its /64 and its /48 are."""
    assert expected == [name for name, _ in sources(ip)]
    assert expected[0] == source(ip)


def test_another_64_of_a_site_does_not_begin_anew() -> None:
    """Rotating through the /64s of one /48 is slowed down after four sources' worth of wrong keys."""
    counted = Sources(now_s=Clock())
    tried = 0
    while counted.may_try(f"2001:db8:1:{tried:x}::1"):
        counted.failed(f"2001:db8:1:{tried:x}::1")
        tried += 1
    assert BURST * 4 == tried
    assert counted.may_try("2001:db8:2::1")


@pytest.mark.parametrize("form", ["2001:db8:{:x}::1", "10.0.{}.1"])
def test_new_addresses_do_not_begin_anew_for_ever(form: str) -> None:
    """Six hundred sites, or IPv4 addresses, try no more wrong keys than all sources together may."""
    counted, tried = Sources(now_s=Clock()), 0
    for number in range(600):
        ip = form.format(number % 256) if "." in form else form.format(number)
        if counted.may_try(ip):
            counted.failed(ip)
            tried += 1
    assert BURST * EVERYBODY[1] == tried
    assert not counted.may_try("203.0.113.9")


def test_guesses_at_one_key_stand_in_no_other_way() -> None:
    """Wrong secrets of a known handle count for that handle and source alone."""
    counted = Sources(now_s=Clock())
    for _ in range(BURST):
        assert counted.may_try("203.0.113.9", handle="nz_aaaaaaaa")
        counted.failed("203.0.113.9", handle="nz_aaaaaaaa")
    assert not counted.may_try("203.0.113.9", handle="nz_aaaaaaaa")
    assert counted.may_try("203.0.113.10", handle="nz_aaaaaaaa")
    assert counted.may_try("203.0.113.9", handle="nz_bbbbbbbb")
    assert counted.may_try("203.0.113.9")


def test_memory_is_bounded() -> None:
    """However many sources try, only so many are remembered."""
    counted = Sources(now_s=Clock())
    for number in range(REMEMBERED + 5):
        counted.failed(f"2001:db8:{number // 65536:x}:{number % 65536:x}::1")
    assert not counted.may_try("203.0.113.9"), "the sum of all is never what is forgotten"
    assert REMEMBERED == len(counted._empty_at)

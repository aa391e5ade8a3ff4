"""The list of backends as a value: parsed, written, changed; and the addresses in it."""

from __future__ import annotations

import json
from ipaddress import IPv6Address
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from authz.backends import address, backend
from authz.backends.backend import Backend
from authz.errors import SettingsError

A = Backend("a", "http://a:11434")
B = Backend("b", "https://b", "SECRET", "X-Key", "")
C = Backend("c", "http://c")

_tokens = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
_backends = st.builds(
    Backend,
    name=st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}", fullmatch=True),
    url=st.one_of(
        st.integers(1, 65535).map(lambda port: f"http://h:{port}"),
        st.integers(1, 2**128 - 1).map(lambda number: f"https://[{IPv6Address(number)}]:1/p"),
    ),
    token=st.none() | _tokens,
    header=st.sampled_from(("Authorization", "X-Api-Key")),
    scheme=st.sampled_from(("Bearer", "Basic", "")),
    max_in_flight=st.none() | st.integers(1, 10_000),
)


@given(st.lists(_backends, unique_by=lambda each: each.name, max_size=4))
def test_list_survives_a_round_trip(backends: list[Backend]) -> None:
    """What is written is read again as the same list, and an env file's quotes can hold it."""
    text = backend.serialise(backends)

    assert tuple(backends) == backend.parse(text, None)
    assert "'" not in text
    assert "\n" not in text
    assert text.isascii()


def test_only_what_differs_is_written() -> None:
    """A line that people read holds no defaults, and its fields have one order."""
    assert '[{"name":"a","url":"http://a:11434"}]' == backend.serialise([A])
    assert '[{"name":"b","url":"https://b","token":"SECRET","header":"X-Key","scheme":""}]' == (
        backend.serialise([B])
    )


def test_tokens_are_hidden() -> None:
    """C3: people see stars, neither the token nor its length; a backend without one has no stars."""
    assert ["***", None] == [
        entry.get("token") for entry in json.loads(backend.redacted([B, evolve(A, token=None)]))
    ]
    assert "SECRET" not in backend.redacted([B]) + repr(B)


def test_new_backend_comes_last() -> None:
    """The order of the list is the operator's."""
    assert (A, B) == backend.added((A,), B, is_replacement=False)
    assert (A, B) == backend.added((A,), B, is_replacement=True)


def test_name_is_replaced_in_its_place() -> None:
    """A replacement keeps the order; without being asked for one the list stays."""
    new = Backend("b", "http://new")

    assert (A, new, C) == backend.added((A, B, C), new, is_replacement=True)
    with pytest.raises(SettingsError, match="--replace"):
        backend.added((A, B, C), new, is_replacement=False)


def test_backend_is_removed() -> None:
    """The others keep their order; an unknown name is refused with those that there are."""
    assert (A, C) == backend.removed((A, B, C), "b")
    with pytest.raises(SettingsError, match=r"no backend 'x': there is a, b, c\."):
        backend.removed((A, B, C), "x")


@pytest.mark.parametrize(
    ("text", "upstream", "base", "host"),
    [
        ("h:1", "http://h:1", "http://h:1", "h:1"),
        ("http://h/", "http://h", "http://h", "h:80"),
        ("https://h/a/b/", "https://h", "https://h/a/b", "h:443"),
        ("http://[fd00::1]:5", "http://[fd00::1]:5", "http://[fd00::1]:5", "[fd00::1]:5"),
        ("https://[::1]", "https://[::1]", "https://[::1]", "[::1]:443"),
        ("unix:///run/o.sock", "unix//run/o.sock", "http://localhost", "localhost"),
    ],
)
def test_addresses(text: str, upstream: str, base: str, host: str) -> None:
    """Each kind of address has what Caddy dials, what paths are appended to, and its Host."""
    read = address.read(text, "x")

    assert (upstream, base, host) == (read.upstream, read.base, read.host_header)
    assert read == address.read(read.text, "x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://h",
        "http://",
        "http://user:SECRET@h",
        "http://h:0",
        "http://h:x",
        "http://h:70000",
        "http://h?q",
        "http://h#f",
        "http://h/a//b",
        "http://h/../x",
        "http://h/{env.HOME}",
        "http://h/a%2fb",
        "http://h h",
        "http://h\nimport",
        "http://{$HOME}",
        "http://hé",
        "http://[::1",
        "http://[fe80::1%25eth0]",
        "unix://h/run/x",
        "unix:///run/x y",
    ],
)
def test_bad_addresses_are_refused(text: str) -> None:
    """One sentence without credentials, and nothing that a Caddyfile would read as its own."""
    with pytest.raises(SettingsError) as refused:
        address.read(text, "x")
    assert "SECRET" not in str(refused.value)
    assert 1 == len(str(refused.value).splitlines())


@pytest.mark.parametrize(
    "change",
    [
        {"name": "A"},
        {"name": "a_b"},
        {"name": "x" * 33},
        {"header": "Host"},
        {"header": "X-Nz-Grant"},
        {"header": "A B"},
        {"header": "-X"},
        {"scheme": "Be arer"},
        {"token": ""},
        {"token": "SECRET\r\nX: y"},
        {"token": "SECRETé"},
        {"token": "SECRET", "max_in_flight": 0},
    ],
)
def test_bad_fields_are_refused(change: dict[str, Any]) -> None:
    """What would be a header of its own, or no header at all, is refused without the token."""
    with pytest.raises(SettingsError) as refused:
        backend.checked(evolve(B, **change))
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "is_private"),
    [
        ("169.254.169.254", True),
        ("fe80::1", True),
        ("::ffff:169.254.0.1", True),
        ("fd00:ec2::254", True),
        ("Metadata.google.internal.", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("fd00::1", False),
        ("gpu", False),
    ],
)
def test_addresses_of_clouds_are_known(host: str, *, is_private: bool) -> None:
    """Link-local and metadata addresses are distinguished from those of a network of one's own."""
    assert is_private == address.is_link_local(host)

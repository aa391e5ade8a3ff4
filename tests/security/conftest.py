"""The gateway under attack: its witnesses and its keys, good and bad."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from authz.identity import secrets as secret_form
from tests.gateway import Gateway
from tests.security.observed import Witness


@pytest.fixture(scope="session")
def witness(gateway: Gateway) -> Iterator[Witness]:
    """The view of the gateway's own parts."""
    with Witness.of(gateway) as witness:
        yield witness


@pytest.fixture
def untouched(witness: Witness) -> Iterator[None]:
    """G1: at the end of the test nothing has reached the backend."""
    witness.forget()
    yield
    assert [] == witness.hits()


@pytest.fixture(scope="session")
def stranger() -> str:
    """A well-formed key that was never made."""
    return _checked(f"{secret_form.PREFIX}{'Z' * 8}{'a' * 32}")


@pytest.fixture(scope="session")
def secrets(gateway: Gateway, stranger: str) -> dict[str, str]:
    """Keys by what is wrong with them."""
    revoked = gateway.create_key("revoked")
    gateway.run("revoke-key", "--prefix", revoked[: secret_form.LOOKUP_LENGTH]).check_returncode()
    return {
        "key": gateway.key,
        "narrow": gateway.create_key("narrow", "--models", "demo"),
        "revoked": revoked,
        "truncated": gateway.key[:-1],
        "lowered": gateway.key.lower(),
        "stranger": stranger,
        "forged": _checked(f"{gateway.key[: secret_form.LOOKUP_LENGTH]}{'a' * 32}"),
    }


def _checked(body: str) -> str:
    """A key text with the check that fits: only authz can find that it is none."""
    return body + secret_form._check(body)

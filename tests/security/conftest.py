"""The gateway under attack: what observes it, and its keys, good and bad."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway import Gateway
from tests.security import keys
from tests.security.node import node
from tests.security.observed import Witness
from tests.security.trials import Proxy, proxy_of


@pytest.fixture(scope="session")
def witness(gateway: Gateway) -> Iterator[Witness]:
    """The view of the gateway's own parts."""
    with Witness.of(gateway) as witness:
        yield witness


@pytest.fixture(scope="session")
def proxy(gateway: Gateway) -> Iterator[Proxy]:
    """A node of the gateway that speaks every protocol, with keys by what is wrong with them."""
    with node(gateway) as started, Witness.of(gateway, started.journal) as witness:
        yield proxy_of(started, keys.made(gateway), witness)


@pytest.fixture
def untouched(witness: Witness) -> Iterator[None]:
    """G1: at the end of the test nothing has reached the backend."""
    witness.forget()
    yield
    assert [] == witness.hits()


@pytest.fixture(scope="session")
def stranger() -> str:
    """A well-formed key that was never made."""
    return keys.STRANGER

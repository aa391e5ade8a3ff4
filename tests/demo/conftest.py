"""A demo backend on a loopback port, as new for every test."""

from collections.abc import Iterator

import httpx
import pytest
from attrs import evolve

from authz.demo.app import create
from authz.demo.backend import named
from tests.serving import served

TOYS = ("toy", "toy2", "toy-think", "toy-tpl", "toy-embed")


@pytest.fixture(scope="session")
def toys() -> Iterator[httpx.Client]:
    """A client of a demo backend with the models of the samples, which says the cycle's words."""
    models = [evolve(named(name), family="llama", parameters="115.00K") for name in TOYS]
    with served(create(models, greeting="")) as url, httpx.Client(base_url=url, timeout=10) as client:
        yield client


@pytest.fixture
def demo(toys: httpx.Client) -> httpx.Client:
    """The same client, of a backend that is as new."""
    toys.delete("/demo/tally")
    return toys

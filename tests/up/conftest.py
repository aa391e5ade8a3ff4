"""Stacks in state folders of their own, brought down whatever became of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.up.stacks import Stack, until

PREFIX = "nz é'#%41&+ "
"""Every stack here lies in a path with a space and with what URLs give a meaning."""


@pytest.fixture
def new_stack() -> Iterator[Callable[[], Stack]]:
    """Makes stacks that are brought down, whatever became of them."""
    made: list[Stack] = []
    # Not pytest's own folders: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:

        def make() -> Stack:
            made.append(Stack(Path(folder) / str(len(made))))
            return made[-1]

        yield make
        for stack in made:
            if stack.processes():
                stack.run("down")
        until(lambda: not any(stack.processes() for stack in made))


@pytest.fixture
def stack(new_stack: Callable[[], Stack]) -> Stack:
    """A stack that has never run."""
    return new_stack()


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    """A stack that runs for all tests of a module, which leave it running."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        shared = Stack(Path(folder) / "s", umask=0o077)
        shared.up()
        yield shared
        shared.run("down")
        assert [] == shared.processes()

"""The demo backend that tests and measurements start ends with them."""

from __future__ import annotations

import threading

import pytest

from authz.demo.app import create
from authz.demo.backend import named
from tests.serving import served


def test_a_failure_ends_the_backend() -> None:
    """What fails while a backend is served is raised at once; a thread left behind would hang the process."""
    before = threading.active_count()

    with pytest.raises(RuntimeError, match="not admitted"), served(create([named("demo")])):
        raise RuntimeError("not admitted")

    assert before == threading.active_count()

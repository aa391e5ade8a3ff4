"""The backend that tests and measurements start ends with them."""

from __future__ import annotations

import threading

import pytest

from tests.backend.app import backend
from tests.backend.serving import served


def test_a_failure_ends_the_backend() -> None:
    """A failure while a backend is served is raised at once; a thread left behind would hang the process."""
    before = threading.active_count()

    with pytest.raises(RuntimeError, match="not admitted"), served(backend("demo")):
        raise RuntimeError("not admitted")

    assert before == threading.active_count()

"""What the soak takes for growth."""

from __future__ import annotations

import pytest

from tests.chaos.soak import MEMORY_KIB, Series


@pytest.mark.parametrize(
    ("growth_kib", "is_flat"), [(0.0, True), (MEMORY_KIB - 1, True), (MEMORY_KIB + 1, False), (5000.0, False)]
)
def test_growth_after_the_warm_up_is_seen(growth_kib: float, is_flat: bool) -> None:
    """A figure that goes on growing is no flat one; how much it grew at first, and its noise, say nothing."""
    series = Series(MEMORY_KIB)
    for step in range(240):
        minute = step / 12
        warmed = min(minute, 5.0) * 10_000
        series.add(minute, warmed + growth_kib * minute + 300 * (-1) ** step)
    assert is_flat is series.is_flat

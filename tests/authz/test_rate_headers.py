"""What the rate headers say of a limit that is partly used."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from authz.decision.rate_headers import of_rates, retry_after
from authz.limiter.admission import Rate
from authz.types import Dialect

NOW = datetime(2026, 1, 31, 23, 59, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("full_in_us", "duration"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (999_000, "999ms"),
        (1_000_000, "1s"),
        (6_020_000, "6.02s"),
        (61_500_000, "1m1.5s"),
    ],
)
def test_openai_resets_are_go_durations(full_in_us: int, duration: str) -> None:
    """OpenAI's SDKs read the time until a limit is full as Go writes durations, rounded up to 1 ms."""
    headers = of_rates(Rate(limit=10, left=9, full_in_us=full_in_us), None, dialect=Dialect.OPENAI, now=NOW)

    assert duration == headers["x-ratelimit-reset-requests"]


def test_anthropic_resets_are_times() -> None:
    """Anthropic's SDK reads when a limit is full, in RFC 3339, across the end of a month."""
    rate = Rate(limit=10, left=9, full_in_us=45_000_000)

    headers = of_rates(None, rate, dialect=Dialect.ANTHROPIC, now=NOW)

    assert "2026-02-01T00:00:15Z" == headers["anthropic-ratelimit-tokens-reset"]


@pytest.mark.parametrize(
    ("wait_us", "seconds", "ms", "should_retry"),
    [
        (0, "1", "1", None),
        (1_500_001, "2", "1501", None),
        (4_000_000, "4", "4000", None),
        (4_000_001, "5", "4001", "false"),
        (60_000_000, "60", "60000", "false"),
    ],
)
def test_a_long_wait_is_shown_to_the_user(
    wait_us: int, seconds: str, ms: str, should_retry: str | None
) -> None:
    """A client retries by itself after four seconds at most; of a longer wait its user is to be shown why."""
    headers = retry_after(wait_us)
    assert (seconds, ms) == (headers["retry-after"], headers["retry-after-ms"])
    assert should_retry == headers.get("x-should-retry")

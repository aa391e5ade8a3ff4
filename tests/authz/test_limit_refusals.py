"""What a client reads when a limit is reached: true, and what would help."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from authz.decision import calendar, limit_refusals
from authz.decision.refusals import Reason, word
from authz.limiter.admission import LimitReached
from authz.types import Dialect
from tests.authz.asking import uuid7
from tests.authz.test_terms import IDENTITY

NOON = calendar.at(datetime(2026, 11, 25, 12, tzinfo=UTC), "UTC")
QUOTA = {Dialect.OLLAMA: 429, Dialect.OPENAI: 429, Dialect.ANTHROPIC: 402}
LIMIT = dict.fromkeys(Dialect, 429)


def _reached(limit: str, *, used: int, needed: int, held: int = 0, scope: str = "key") -> LimitReached:
    return LimitReached(limit, scope, used=used, value=50_000, wait_us=0, held=held, needed=needed)


CASES = [
    (
        _reached("day", used=50_000, needed=900),
        Reason.BUDGET_EXHAUSTED,
        (
            "This key's budget of 50,000 tokens per day is used up (50,000 used): "
            "it starts again at 2026-11-26T00:00:00+00:00."
        ),
    ),
    (
        _reached("total", used=50_007, needed=900, scope="tenant"),
        Reason.BUDGET_EXHAUSTED,
        "The tenant's budget of 50,000 tokens in total is used up (50,007 used): ask its owner for more.",
    ),
    (
        _reached("day", used=50_000, needed=90_000),
        Reason.BUDGET_EXHAUSTED,
        "This key's budget of 50,000 tokens per day is used up (50,000 used): ask its owner for more.",
    ),
    (
        _reached("month", used=49_000, needed=4_000),
        Reason.BUDGET_TOO_SMALL,
        (
            "This key's budget of 50,000 tokens per month does not suffice: "
            "this request may need up to 4,000 "
            "tokens, 1,000 are left; send a shorter prompt, or wait: it starts again at "
            "2026-12-01T00:00:00+00:00."
        ),
    ),
    (
        _reached("day", used=0, held=40_000, needed=60_000, scope="tenant"),
        Reason.BUDGET_TOO_SMALL,
        (
            "The tenant's budget of 50,000 tokens per day does not suffice: "
            "this request may need up to 60,000 "
            "tokens, 50,000 are left; send a shorter prompt, or ask its owner for more."
        ),
    ),
    (
        _reached("total", used=49_999, needed=2),
        Reason.BUDGET_TOO_SMALL,
        (
            "This key's budget of 50,000 tokens in total does not suffice: "
            "this request may need up to 2 tokens, "
            "1 are left; send a shorter prompt, or ask its owner for more."
        ),
    ),
    (
        _reached("held_day", used=100, held=45_000, needed=6_000),
        Reason.BUDGET_HELD,
        (
            "This key's budget of 50,000 tokens per day is held by running requests (100 used, 45,000 held): "
            "this request may need up to 6,000 tokens, 4,900 are free; try again in 2 s."
        ),
    ),
    (
        _reached("held_total", used=100, held=2_800_000, needed=6_000, scope="tenant"),
        Reason.BUDGET_HELD,
        (
            "The tenant's budget of 50,000 tokens in total is held by running requests "
            "(100 used, 2,800,000 held): this request may need up to 6,000 tokens, 0 are free; "
            "try again in 2 s."
        ),
    ),
]


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(("reached", "reason", "sentence"), CASES)
def test_a_budgets_refusal_is_true(
    reached: LimitReached, reason: Reason, sentence: str, dialect: Dialect
) -> None:
    """Used up, too little left for this request, or held by others; only what time cures says when."""
    refusal = limit_refusals.limit_reached(reached, IDENTITY, calendar=NOON, retry_s=2)
    answer = word(refusal, dialect=dialect, request_id=uuid7())
    error = json.loads(answer.body)["error"]
    assert reason is refusal.reason
    assert sentence == (error if dialect is Dialect.OLLAMA else error["message"])
    if reached.is_passing:
        assert ("2", None) == (answer.headers["retry-after"], answer.headers.get("x-should-retry"))
        assert LIMIT[dialect] == answer.status
    else:
        assert "retry-after" not in answer.headers
        assert ("false", QUOTA[dialect]) == (answer.headers["x-should-retry"], answer.status)
        assert dialect is not Dialect.OPENAI or error["type"] == "insufficient_quota"

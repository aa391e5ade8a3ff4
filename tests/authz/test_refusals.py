"""The answers that refused clients read."""

from __future__ import annotations

import json
import re
from uuid import UUID

import pytest

from authz.decision.refusals import SIGN_SENTENCE, WORDINGS, Reason, Refusal, word
from authz.types import Dialect

ID = UUID("019ab5c0-1c00-7000-8000-000000000001")
WORDS = {
    "mutation": "Models can't be changed",
    "path": "that path",
    "count": "3",
    "what": "images",
    "model": "m",
    "field": "tools.type",
    "owner": "This key's",
    "limit": "1,000",
    "used": "990",
    "held": "10",
    "needed": "20",
    "left": "0",
    "period": "per day",
    "seconds": "1",
    "remedy": "it starts again at midnight",
    "signed": "2026-11-26 10:00:00 UTC",
    "now": "2026-11-26 11:00:00 UTC",
}
UNAUTHENTICATED = [reason for reason, entry in WORDINGS.items() if entry.status == 401]


def _error(reason: Reason, dialect: Dialect) -> object:
    return json.loads(word(Refusal(reason, words=WORDS), dialect=dialect, request_id=ID).body)


@pytest.mark.parametrize("reason", WORDINGS)
def test_shapes(reason: Reason) -> None:
    """Every refusal has the shape of its reader's SDK, with one sentence for all of them."""
    sentence = WORDINGS[reason].sentence.format(**WORDS)
    status = {"status": f"{sentence} {SIGN_SENTENCE}"} if reason in UNAUTHENTICATED else {}
    assert {"error": sentence} | status == _error(reason, Dialect.OLLAMA)
    openai = {
        "message": sentence,
        "type": WORDINGS[reason].openai_type,
        "param": None,
        "code": WORDINGS[reason].openai_code,
    }
    assert {"error": openai} == _error(reason, Dialect.OPENAI)
    anthropic = {"type": WORDINGS[reason].anthropic_type, "message": sentence}
    assert {"type": "error", "error": anthropic, "request_id": str(ID)} == _error(reason, Dialect.ANTHROPIC)


@pytest.mark.parametrize("reason", [reason for reason in WORDINGS if reason is not Reason.MODEL_UNKNOWN])
def test_one_sentence_that_says_what_to_do(reason: Reason) -> None:
    """A refusal is one sentence: what is wrong, a colon or comma, what to do."""
    assert re.fullmatch(r"[A-Z][^\n]+[:,] [^\n]+\.", WORDINGS[reason].sentence.format(**WORDS))


@pytest.mark.parametrize("dialect", Dialect)
def test_all_401_are_one(dialect: Dialect) -> None:
    """Without the secret a wrong key and a revoked one look alike."""
    answers = {json.dumps(_error(reason, dialect)) for reason in UNAUTHENTICATED}
    assert 1 == len(answers)
    assert 8 > len(UNAUTHENTICATED) > 4


@pytest.mark.parametrize("reason", UNAUTHENTICATED)
def test_401_has_a_challenge(reason: Reason) -> None:
    """A 401 says how to authenticate."""
    assert (
        "Bearer" == word(Refusal(reason), dialect=Dialect.OLLAMA, request_id=ID).headers["www-authenticate"]
    )


@pytest.mark.parametrize("reason", [reason for reason, entry in WORDINGS.items() if entry.status == 503])
def test_503_says_when_to_retry(reason: Reason) -> None:
    """Whatever passes by itself says so."""
    assert "1" == word(Refusal(reason), dialect=Dialect.OPENAI, request_id=ID).headers["retry-after"]


def test_an_absent_backend_is_no_overload() -> None:
    """Claude Code repeats an `overloaded_error` for minutes, whatever the headers say; a backend is away."""
    answer = word(Refusal(Reason.BACKEND_UNAVAILABLE), dialect=Dialect.ANTHROPIC, request_id=ID)
    assert "api_error" == json.loads(answer.body)["error"]["type"]


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize("reason", WORDINGS)
def test_a_final_answer_is_not_retried(reason: Reason, dialect: Dialect) -> None:
    """What a retry can't cure says so and names no time; all else is a passing 429 or 503."""
    wording = WORDINGS[reason]
    headers = word(Refusal(reason, words=WORDS), dialect=dialect, request_id=ID).headers
    assert (None if wording.is_passing else "false") == headers.get("x-should-retry")
    assert ("1" if wording.is_passing else None) == headers.get("retry-after")
    assert not wording.is_passing or wording.status in {429, 503}


def test_a_models_name_stays_inside_its_string() -> None:
    """Whatever a client calls a model, the answer stays one JSON object."""
    hostile = '"}{{evil}}\n'
    answer = word(
        Refusal(Reason.MODEL_UNKNOWN, words={"model": hostile}), dialect=Dialect.OLLAMA, request_id=ID
    )
    assert {"error": f"model '{hostile}' not found"} == json.loads(answer.body)

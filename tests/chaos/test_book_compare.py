"""The judge of a chaos run finds what is wrong: a judge that never does would prove nothing."""

from __future__ import annotations

from uuid import UUID

import pytest
from attrs import evolve

from tests.chaos.book_compare import Judge, Verdict
from tests.chaos.evidence import Row, Truth
from tests.chaos.questions import Asked, Manner, Question

BOOT, LATER_BOOT, ID, KEY = (UUID(int=number) for number in range(1, 5))
QUESTION = Question("tag", "/api/chat", Manner.STREAM, "tokens=4 tag=tag", "demo")
WHOLE = Asked(KEY, QUESTION, status=200, request_id=ID, delivered_tokens=4, is_whole=True)
LEFT = evolve(WHOLE, delivered_tokens=2, is_whole=False)
ABANDONED = evolve(LEFT, question=evolve(QUESTION, manner=Manner.ABANDON, patience_s=0.1), delivered_tokens=0)
PATIENT = evolve(ABANDONED, question=evolve(ABANDONED.question, patience_s=0.4))
NAMELESS = Asked(KEY, QUESTION)
ROW = Row(
    id=ID,
    boot=BOOT,
    tenant=KEY,
    key=KEY,
    path="/api/chat",
    prompt_bytes=16,
    outcome="completed",
    usage_source="reported",
    is_terminal=True,
    ceiling_tokens=30,
    input_tokens=5,
    output_tokens=4,
    overrun_tokens=0,
    day=None,
    month=None,
)
GONE = evolve(ROW, outcome="client_gone", usage_source="counted", is_terminal=False, output_tokens=3)
ORPHAN = evolve(GONE, outcome="orphaned", usage_source="progress", input_tokens=10, output_tokens=20)
TRUTH = Truth(input_tokens=5, output_tokens=4, is_finished=True)


@pytest.mark.parametrize(
    ("verdict", "asked", "row", "truths"),
    [
        (Verdict.EXACT, WHOLE, ROW, [TRUTH]),
        (Verdict.EXACT, NAMELESS, ROW, [TRUTH]),
        (Verdict.WRONG_AMOUNT, WHOLE, evolve(ROW, output_tokens=3), [TRUTH]),
        (Verdict.WRONG_AMOUNT, WHOLE, evolve(ROW, usage_source="counted"), [TRUTH]),
        (Verdict.BOUNDED, LEFT, GONE, [TRUTH]),
        (Verdict.WRONG_AMOUNT, LEFT, evolve(GONE, output_tokens=1), [TRUTH]),
        (Verdict.WRONG_AMOUNT, LEFT, evolve(GONE, output_tokens=26), [TRUTH]),
        (Verdict.WRONG_AMOUNT, LEFT, evolve(GONE, output_tokens=6), [TRUTH]),
        (Verdict.BOUNDED, ABANDONED, evolve(GONE, output_tokens=17), [TRUTH]),
        (Verdict.WRONG_AMOUNT, ABANDONED, evolve(GONE, output_tokens=18), [TRUTH]),
        (Verdict.BOUNDED, PATIENT, evolve(GONE, output_tokens=42), [TRUTH]),
        (Verdict.WRONG_AMOUNT, PATIENT, evolve(GONE, output_tokens=43), [TRUTH]),
        (Verdict.PROGRESS, LEFT, ORPHAN, [TRUTH]),
        (Verdict.PROGRESS, NAMELESS, ORPHAN, []),
        (Verdict.WRONG_ORPHAN, LEFT, evolve(ORPHAN, boot=LATER_BOOT), [TRUTH]),
        (Verdict.WRONG_ORPHAN, LEFT, evolve(ORPHAN, output_tokens=21), [TRUTH]),
        (Verdict.FREE, WHOLE, evolve(ROW, input_tokens=0, output_tokens=0), []),
        (Verdict.WRONG_FREE, WHOLE, ROW, []),
        (Verdict.WRONG_TWICE, WHOLE, ROW, [TRUTH, TRUTH]),
        (Verdict.WRONG_UNBILLED, WHOLE, None, [TRUTH]),
        (Verdict.COUNTED, evolve(WHOLE, status=503), None, []),
        (Verdict.UNSEEN, NAMELESS, None, []),
    ],
)
def test_request(verdict: Verdict, asked: Asked, row: Row | None, truths: list[Truth]) -> None:
    """B1, B2: a request is judged by what its client saw, what the backend did and what was billed."""
    rows = {} if row is None else {row.id: row}
    judge = Judge(rows, {"tag": truths} if truths else {}, frozenset({BOOT}))
    judge.judge([asked])
    assert {verdict: 1} == judge.counts
    assert verdict.value.startswith("wrong") == bool(judge.wrongs)


def test_bill_without_a_request() -> None:
    """B2: tokens of a request that was never made are wrong."""
    judge = Judge({ID: ROW}, {}, frozenset())
    judge.judge([])
    assert {Verdict.WRONG_STRAY: 1} == judge.counts

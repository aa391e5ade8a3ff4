"""Compare an answer with the refusal that a request must get, by its status, its sentence and its id."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.decision import routes
from authz.decision.refusals import WORDINGS, Reason
from authz.stack.doctor.finding import Finding, fail, ok

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authz.stack.prove.gate import Answer, Request

_SHOWN_BYTES: Final = 120


@frozen
class Case:
    """A request that must be refused, for any of these reasons."""

    check: str
    request: Request
    reasons: tuple[Reason, ...]


def problem(case: Case, answer: Answer) -> str | None:
    """Return how an answer differs from the refusal that is due; None if it is that very refusal."""
    request = case.request
    asked = f"{request.method} {request.target[:_SHOWN_BYTES]}"
    statuses = [_status(reason, request.path) for reason in case.reasons]
    if answer.status not in statuses:
        return f"{asked} is answered {_in_words(answer)}, where {statuses[0]} is due"
    if not answer.request_id:
        return f"{asked} is refused by something else than the gateway: {_in_words(answer)} without its id"
    if request.method != "HEAD" and not any(_says(answer, reason) for reason in case.reasons):
        return f"{asked} is refused for another reason than {case.reasons[0]}: {_in_words(answer)}"
    return None


def judge(check: str, cases: Iterable[tuple[Case, Answer]], fine: str, todo: str) -> list[Finding]:
    """Judge all cases of a check together; each that failed is a line."""
    wrong = [found for case, answer in cases if (found := problem(case, answer)) is not None]
    return [fail(check, f"{each}: {todo}") for each in wrong] or [ok(check, fine)]


def _status(reason: Reason, path: str) -> int:
    wording = WORDINGS[reason]
    return wording.statuses.get(routes.dialect_of(path), wording.status)


def _says(answer: Answer, reason: Reason) -> bool:
    """Return whether a body has the longest piece of the reason's sentence that is the same for all."""
    piece = max(re.split(r"\{\w+\}", WORDINGS[reason].sentence), key=len)
    return piece.strip().encode() in answer.body


def _in_words(answer: Answer) -> str:
    text = " ".join(answer.body[:_SHOWN_BYTES].decode(errors="replace").split())
    return f"{answer.status} ({text})" if text else str(answer.status)

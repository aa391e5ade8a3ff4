"""Every request of a run, judged: what its client saw, what the backend did, what was billed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from uuid import UUID

from attrs import Factory, define, frozen

from tests.chaos.evidence import Row, Truth
from tests.chaos.questions import PACE_S, UNREPORTED, Asked, Manner

UNSTEADY_TOKENS = 12
"""A single answer that is left costs its time: a machine under load stands still for 0.1 s and more. What it
stood still beyond that is billed as well, but no token beyond the time that its client has waited."""


class Verdict(StrEnum):
    """The verdict on a request's bill; those that begin with `wrong` may not be."""

    EXACT = "billed as the backend counted"
    BOUNDED = "ended early: delivered <= billed <= produced + 5 %"
    PROGRESS = "died with Caddy: its last progress, within the ceiling"
    FREE = "refused: nothing"
    COUNTED = "refused: counted by the minute"
    UNSEEN = "unanswered, never ran"
    WRONG_UNBILLED = "wrong: ran, not billed"
    WRONG_AMOUNT = "wrong: ran, billed otherwise"
    WRONG_FREE = "wrong: never ran, billed"
    WRONG_ORPHAN = "wrong: orphaned though its Caddy lived"
    WRONG_TWICE = "wrong: ran twice"
    WRONG_STRAY = "wrong: billed, never asked"


@frozen
class Wrong:
    """A request whose bill is wrong, with all that is known of it."""

    verdict: Verdict
    asked: Asked | None
    row: Row | None
    truths: tuple[Truth, ...] = ()


@define
class Judge:
    """Joins requests with their rows (by id, else by the length of their prompts) and judges them."""

    rows: Mapping[UUID, Row]
    truths: Mapping[str, list[Truth]]
    killed_boots: frozenset[UUID]
    counts: Counter[Verdict] = Factory(Counter)
    wrongs: list[Wrong] = Factory(list)
    billed_tokens: int = 0
    _open: dict[UUID, Row] = Factory(dict)
    _by_prompt: dict[tuple[UUID | None, str | None, int | None], Row] = Factory(dict)
    _orphans: defaultdict[UUID | None, list[Row]] = Factory(lambda: defaultdict(list))
    _more_bytes: dict[tuple[str, str], int] = Factory(dict)

    def judge(self, all_asked: Iterable[Asked]) -> None:
        """Judge all that was asked, then what was never asked for."""
        known = [asked for asked in all_asked if asked.request_id in self.rows]
        nameless = [asked for asked in all_asked if asked.request_id not in self.rows]
        self._open = dict(self.rows)
        for asked in known:
            row = self._open.pop(asked.request_id or UUID(int=0))
            if row.prompt_bytes is not None:
                self._more_bytes[asked.question.shape] = row.prompt_bytes - len(asked.question.prompt)
            self._note(asked, row)
        self._sort_open()
        # Those that the backend knows take their orphans before those that may never have begun.
        for asked in sorted(nameless, key=lambda one: one.question.tag not in self.truths):
            self._note(asked, self._row_of(asked))
        for row in self._open.values():
            if row.tokens:
                self._add(Verdict.WRONG_STRAY, None, row)

    def _sort_open(self) -> None:
        for row in self._open.values():
            if row.usage_source == "progress":
                self._orphans[row.key].append(row)
            else:
                self._by_prompt[row.key, row.path, row.prompt_bytes] = row

    def _row_of(self, asked: Asked) -> Row | None:
        question = asked.question
        length = len(question.prompt) + self._more_bytes.get(question.shape, 0)
        row = self._by_prompt.pop((asked.key, question.path, length), None)
        if row is None and asked.status == 0 and self._orphans[asked.key]:
            row = self._orphans[asked.key].pop()
        if row is not None:
            del self._open[row.id]
        return row

    def _note(self, asked: Asked, row: Row | None) -> None:
        ran = tuple(self.truths.get(asked.question.tag, ()))
        self._add(self._verdict(asked, row, ran), asked, row, ran)

    def _add(
        self, verdict: Verdict, asked: Asked | None, row: Row | None, ran: tuple[Truth, ...] = ()
    ) -> None:
        self.counts[verdict] += 1
        self.billed_tokens += row.tokens if row else 0
        if verdict.value.startswith("wrong"):
            self.wrongs.append(Wrong(verdict, asked, row, ran))

    def _verdict(self, asked: Asked, row: Row | None, ran: tuple[Truth, ...]) -> Verdict:
        if len(ran) > 1:
            return Verdict.WRONG_TWICE
        if row is None:
            return _unknown(asked, is_run=bool(ran))
        if row.usage_source == "progress":
            is_right = 1 <= row.tokens <= (row.ceiling_tokens or 0) and row.boot in self.killed_boots
            return Verdict.PROGRESS if is_right else Verdict.WRONG_ORPHAN
        if not ran:
            return _free(row)
        return _billed(asked, row, ran[0])


def _unknown(asked: Asked, *, is_run: bool) -> Verdict:
    if is_run:
        return Verdict.WRONG_UNBILLED
    return Verdict.COUNTED if asked.status else Verdict.UNSEEN


def _free(row: Row) -> Verdict:
    if row.tokens == 0:
        return Verdict.FREE
    # Its client left while it was on its way to the backend, which never heard of it.
    is_early = row.outcome == "client_gone" and row.tokens <= (row.ceiling_tokens or 0)
    return Verdict.BOUNDED if is_early else Verdict.WRONG_FREE


def _billed(asked: Asked, row: Row, truth: Truth) -> Verdict:
    """B1: what arrived whole costs what the backend says; what did not, what was delivered at least."""
    is_reported = asked.question.path != UNREPORTED
    if is_reported and (asked.is_whole or row.is_terminal):
        exact = truth.input_tokens, truth.output_tokens
        is_right = (row.input_tokens, row.output_tokens) == exact and row.usage_source == "reported"
        return Verdict.EXACT if is_right else Verdict.WRONG_AMOUNT
    # A single answer that was left while its model was loaded costs nothing.
    least, slack = (
        (1, asked.question.tokens_per_frame - 1) if asked.question.is_stream else (0, UNSTEADY_TOKENS)
    )
    most = math.ceil(1.05 * max(truth.output_tokens, asked.delivered_tokens)) + slack
    if asked.question.manner is Manner.ABANDON:
        most = max(most, math.ceil(1.05 * asked.question.patience_s / PACE_S))
    is_right = asked.delivered_tokens <= row.output_tokens <= most and least <= row.tokens
    return Verdict.BOUNDED if is_right else Verdict.WRONG_AMOUNT

"""Lines with a field that can't be read: their requests are settled all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.types import GREATEST_COUNT
from metering.days import moment_of
from metering.journal import understand
from metering.lines import Tokens
from metering.rows import Line
from tests.metering.conftest import Begin
from tests.metering.test_journal import golden
from tests.metering.writing import KEY, TENANT, JournalFile

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
KEPT = {"v", "id", "tenant", "key"}


def fields(name: str) -> list[str]:
    """Name the fields of a golden line that may be anything."""
    return sorted(json.loads(golden(name))["gateway"].keys() - KEPT)


def changed(name: str, **values: object) -> bytes:
    """A golden line with some fields replaced."""
    line = json.loads(golden(name))
    line["gateway"] |= values
    return json.dumps(line).encode()


@given(field=st.sampled_from(fields("record")), value=JSON)
def test_any_record_with_a_known_request_is_settled(field: str, value: Any) -> None:
    """B1: whatever stands in a field, a record whose id, tenant and key can be read is no dead letter."""
    page = understand([Line(0, changed("record", **{field: value}))])
    assert (1, ()) == (len(page.ended), page.dead)


@given(field=st.sampled_from(fields("open")), value=JSON)
def test_any_open_line_with_a_known_request_is_taken(field: str, value: Any) -> None:
    """B1: whatever stands in a field, an open line whose id, tenant and key can be read is no dead letter."""
    page = understand([Line(0, changed("open", **{field: value}))])
    assert (1, ()) == (len(page.opens), page.dead)


def test_an_unreadable_deadline_is_half_an_hour_away() -> None:
    """A request whose deadline can't be read may run on: an end of file now must not take it for dead."""
    page = understand([Line(0, changed("open", deadline="soon"))])
    (opened,) = page.opens
    assert 1800 == opened.deadline - moment_of(opened.id).timestamp()


@pytest.mark.parametrize(
    ("value", "read"),
    [(-1, 0), (6.5, 6), (2**41, GREATEST_COUNT), (10**30, GREATEST_COUNT), ("64", None), ([64], None)],
)
def test_numbers_are_clamped(value: object, read: int | None) -> None:
    """A number beyond what is settled is the nearest that is; what is no number is not said."""
    page = understand([Line(0, changed("record", output_tokens=value))])
    (ended,) = page.ended
    assert (read, (ended.record.id,)) == (ended.record.output_tokens, page.salvaged)


def test_an_unreadable_ceiling_is_none() -> None:
    """Terms that can't be read are no reason to charge less."""
    (ended,) = understand([Line(0, changed("record", ceiling="much", reserved={"input": -5}))]).ended
    assert Tokens(GREATEST_COUNT, GREATEST_COUNT) == ended.record.ceiling
    assert Tokens(0, 0) == ended.record.reserved


@pytest.mark.parametrize("name", ["record", "open", "progress", "boot"])
@pytest.mark.parametrize("version", [2, 0, 10**30, "1", "2.1", 1.5, None, [1], {"major": 1}])
@pytest.mark.parametrize("others", [{}, {"seq": "odd"}])
def test_a_line_of_another_version_is_not_guessed_at(
    name: str, version: object, others: dict[str, object]
) -> None:
    """What a newer writer means by its fields is not known, nor how it counts its versions: its lines wait
    for a newer reader.
    """
    (dead,) = understand([Line(0, changed(name, v=version, **others))]).dead
    assert "version_unknown" == dead.reason


@pytest.mark.parametrize("name", ["record", "open"])
def test_a_line_without_a_version_is_not_guessed_at(name: str) -> None:
    """Every version has written which it is."""
    line = json.loads(golden(name))
    del line["gateway"]["v"]
    (dead,) = understand([Line(0, json.dumps(line).encode())]).dead
    assert "version_unknown" == dead.reason


@pytest.mark.parametrize("missing", ["id", "tenant", "key"])
def test_a_line_of_no_known_request_is_kept(missing: str) -> None:
    """Without the request, its tenant and its key no one can be charged: the line is a dead letter."""
    (dead,) = understand([Line(0, changed("record", **{missing: 5, "deltas": "many"}))]).dead
    assert "field_invalid" == dead.reason


async def test_odd_lines_are_billed_and_alarmed(
    begin: Begin, journal: JournalFile, capsys: pytest.CaptureFixture[str]
) -> None:
    """B1: a record with odd numbers is a row with the tokens that it reports, and it is noticed."""
    request_id = journal.new_id()
    journal.append(journal.opened(request_id, deadline="soon", windows={"day": "never"}))
    journal.append(journal.ended(request_id, deltas=-3, max_output=2**60, status="fine", images=2**40))
    service = await begin()
    await service.drain()
    (row,) = await service.rows()
    assert (TENANT, KEY, 10, 20) == (
        row["tenant_id"],
        row["key_id"],
        row["input_tokens"],
        row["output_tokens"],
    )
    assert (0, GREATEST_COUNT, None, 2**31 - 1) == (
        row["deltas"],
        row["max_output"],
        row["status"],
        row["images"],
    )
    assert "metering.line_salvaged" in capsys.readouterr().out

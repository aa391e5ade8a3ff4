"""Journal lines: the golden samples, and everything that is none."""

from __future__ import annotations

from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from metering.journal import RAW_BYTES, DeadLetter, Page, understand
from metering.lines import Tokens
from metering.rows import Cut, Line
from tests.metering.writing import JournalFile

GOLDEN = Path(__file__).parents[2] / "caddy" / "testdata" / "contract"


def golden(name: str) -> bytes:
    """A golden line."""
    return (GOLDEN / f"{name}.json").read_bytes().strip()


def read(*lines: bytes) -> Page:
    """What lines of a file say."""
    return understand([Line(100 * number, data) for number, data in enumerate(lines)])


def reasons(*lines: bytes) -> list[str]:
    """Why lines are dead letters."""
    return [letter.reason for letter in read(*lines).dead]


def test_golden_boot() -> None:
    """The golden boot line is understood."""
    (boot,) = read(golden("boot")).boots
    assert (0, UUID("019ab5bf-0000-7000-8000-0000000000b0")) == (boot.seq, boot.boot)


def test_golden_open() -> None:
    """The golden open line is understood."""
    (opened,) = read(golden("open")).opens
    assert (Tokens(94, 256), date(2026, 11, 25), date(2026, 11, 1), 1795330266) == (
        opened.reserved,
        opened.windows.day,
        opened.windows.month_start,
        opened.deadline,
    )


def test_golden_record() -> None:
    """The golden record is understood, with the time its line was written."""
    (ended,) = read(golden("record")).ended
    record = ended.record
    assert datetime(2026, 11, 22, 6, 21, 7, 220000, tzinfo=UTC) == ended.at
    assert ("completed", 78, 64, 12, True, None) == (
        record.outcome,
        record.input_tokens,
        record.output_tokens,
        record.cached_tokens,
        record.terminal,
        record.eval_ms,
    )


def test_golden_denied_record() -> None:
    """A record without a Grant says null, never 0, for what is unknown."""
    (ended,) = read(golden("record-denied")).ended
    assert ("denied", None, None, None) == (
        ended.record.outcome,
        ended.record.tenant,
        ended.record.reserved,
        ended.record.input_tokens,
    )


def test_a_missing_field_is_null(journal: JournalFile) -> None:
    """A record may leave out what it has nothing to say about."""
    request_id = journal.new_id()
    line = journal.line("handled request", {"id": str(request_id), "outcome": "denied"})
    (ended,) = read(line.strip()).ended
    assert (request_id, None, None) == (ended.record.id, ended.record.model, ended.record.deltas)


def test_unknown_fields_are_ignored() -> None:
    """A newer writer may say more."""
    line = golden("open").replace(b'"seq":1', b'"seq":1,"colour":{"deep":[1]}')
    assert 1 == len(read(line).opens)


@pytest.mark.parametrize("data", [b"", b"   ", b"\t\r", b" " * 4095])
def test_blank_lines_say_nothing(data: bytes) -> None:
    """A blank line, by which Caddy tries whether it can write again, is no dead letter."""
    assert Page() == read(data)


NOT_UNDERSTOOD = {
    "garbage": (b"\xff\xfe\x00garbage", "not_json"),
    "nul": (b"\0" * 40, "not_json"),
    "half": (golden("record")[:300], "not_json"),
    "array": (b"[1,2]", "not_ours"),
    "deep array": (b"[" * 100_000, "not_ours"),
    "deep object": (b'{"msg":"x","ts":1,"gateway":' + b'{"a":' * 100_000, "not_json"),
    "no gateway": (b'{"level":"info","ts":1,"msg":"x"}', "not_ours"),
    "gateway is no object": (b'{"level":"info","ts":1,"msg":"x","gateway":3}', "field_invalid"),
    "time is nonsense": (golden("open").replace(b'"ts":17', b'"ts":17e30'), "not_ours"),
    "version 2": (golden("open").replace(b'"v":1', b'"v":2'), "version_unknown"),
    "version 2 with other fields": (
        golden("open").replace(b'"v":1', b'"v":2').replace(b'"seq":1', b'"seq":"a"'),
        "version_unknown",
    ),
    "no id": (golden("record").replace(b'"id":', b'"no":'), "field_invalid"),
    "an id that is no UUIDv7": (golden("record").replace(b"1c00-7000", b"1c00-4000"), "id_invalid"),
    "an id of 1970": (golden("record").replace(b"019ab5c0-1c00", b"00000000-0001"), "id_invalid"),
    "an id of the far future": (golden("record").replace(b"019ab5c0-1c00", b"f19ab5c0-1c00"), "id_invalid"),
}


@pytest.mark.parametrize(("data", "reason"), NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD.keys())
def test_what_is_not_understood_is_a_dead_letter(data: bytes, reason: str) -> None:
    """Nothing is guessed, and a bad line costs no other one."""
    page = read(golden("boot"), data, golden("open"))
    assert (1, 1, [reason]) == (len(page.boots), len(page.opens), [letter.reason for letter in page.dead])


def test_a_dead_letter_keeps_the_beginning_and_the_digest() -> None:
    """What was not understood can be found again: its place, its length, its digest, its first bytes."""
    data = b"x" * 20_000
    (letter,) = read(b"", data).dead
    assert DeadLetter(100, 20_000, sha256(data).digest(), "not_json", b"x" * RAW_BYTES) == letter


@pytest.mark.parametrize("length", [1, 9, 60, 400])
def test_a_line_glued_to_a_torn_one_is_read(length: int) -> None:
    """After a torn write the next entry hangs on the same line: it counts, the torn part is kept."""
    torn = golden("record-denied")[:length]
    page = read(torn + golden("record"))
    assert 1 == len(page.ended)
    assert [DeadLetter(0, length, sha256(torn).digest(), "torn", torn)] == list(page.dead)


def test_a_hole_before_a_line_is_kept_apart() -> None:
    """NULs before a line, as a truncated file gets them, do not spoil it."""
    page = read(b"\0" * 5000 + golden("record"))
    assert (1, [5000]) == (len(page.ended), [letter.length for letter in page.dead])


def test_a_text_that_looks_like_a_line_is_a_text(journal: JournalFile) -> None:
    """A client can't make a line of its own: inside a text the quotes are escaped."""
    request_id = journal.new_id()
    evil = golden("record").decode()
    line = journal.ended(request_id, model=evil).strip()
    assert [request_id] == [ended.record.id for ended in read(line).ended]
    broken = read(line[:-1])
    assert ([], ["not_json"]) == (list(broken.ended), [letter.reason for letter in broken.dead])


def test_a_last_line_without_newline_is_torn_unless_it_is_whole() -> None:
    """Of a file that ends without a newline the last line counts if all of it is there."""
    whole = understand([Line(0, golden("record"), is_whole=False)])
    torn = understand([Line(0, golden("record")[:-5], is_whole=False)])
    assert (1, []) == (len(whole.ended), list(whole.dead))
    assert (0, ["torn"]) == (len(torn.ended), [letter.reason for letter in torn.dead])


def test_a_line_too_long_is_a_dead_letter_of_its_true_length() -> None:
    """Of a line that is not read whole its length and digest are kept."""
    page = understand([Line(7, b"head", Cut(5_000_000, b"d" * 32))])
    assert (DeadLetter(7, 5_000_000, b"d" * 32, "too_long", b"head"),) == page.dead

"""Dead letters: listed, and read again by the metering that follows the journal."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from authz.__main__ import run
from authz.accounts.session import Session
from authz.admin.audit import audit
from authz.admin.dead_letters import Replay, letters, progress, want
from authz.errors import CommandError
from metering.tail import CHUNK_BYTES
from tests.metering.conftest import Begin, Service
from tests.metering.writing import JournalFile


@pytest.fixture
async def rejected(begin: Begin, journal: JournalFile) -> Service:
    """A service that has rejected a request, garbage, and a line too long to be kept whole."""
    service = await begin()
    await service.ledger.execute("ALTER TABLE ledger ADD CONSTRAINT odd CHECK (deltas <> 13)")
    journal.request(deltas=13)
    journal.append(b"garbage \x1b[2J\n")
    journal.append(b"x" * (CHUNK_BYTES + 1) + b"\n")
    await service.drain()
    await service.ledger.execute("ALTER TABLE ledger DROP CONSTRAINT odd")
    return service


@pytest.mark.usefixtures("rejected")
async def test_letters_are_listed_with_their_reason(session: Session) -> None:
    """Oldest first, each with why, how long it is, and how it begins."""
    found = await letters(session)
    assert [("refused", None), ("not_json", None), ("too_long", None)] == [
        (letter.reason, letter.replayed) for letter in found
    ]
    assert ["garbage \x1b[2J", CHUNK_BYTES + 1] == [found[1].beginning, found[2].bytes]
    assert {80} == {len(found[number].beginning) for number in (0, 2)}


async def test_what_is_understood_now_is_settled(session: Session, rejected: Service) -> None:
    """Metering settles what it understands now; what it does not is no longer wanted, and can be again."""
    wanted = await want(session, None)
    assert [1, 2] == wanted
    assert Replay(wanted=2, settled=0, waiting=2) == await progress(session, wanted)
    await rejected.beat(times=6)
    assert Replay(wanted=2, settled=1, waiting=0) == await progress(session, wanted)
    assert [30] == [row["input_tokens"] + row["output_tokens"] for row in await rejected.rows()]
    assert [2] == await want(session, None)


async def test_a_letter_is_replayed_once(session: Session, rejected: Service) -> None:
    """What was replayed, what was not kept whole and what does not exist can't be asked for by id."""
    await want(session, [1])
    await rejected.beat(times=6)
    for id_ in (1, 3, 99):
        with pytest.raises(CommandError, match=f"No letter to replay is {id_}"):
            await want(session, [id_, 2])
    assert [False] * 3 == [letter.is_wanted for letter in await letters(session)]


async def test_a_replay_is_in_the_audit(session: Session, rejected: Service) -> None:
    """Who had lines settled is known; a request for none is no change."""
    await want(session, [1])
    await rejected.beat(times=6)
    await want(session, [2])
    await rejected.ledger.execute("DELETE FROM dead_letters")
    assert [] == await want(session, None)
    seen = [
        (event.actor, event.action, event.new)
        for event in await audit(session, since=datetime(2020, 1, 1, tzinfo=UTC))
    ]
    assert [
        ("tester", "dead_letters_replayed", {"letters": [1]}),
        ("tester", "dead_letters_replayed", {"letters": [2]}),
    ] == [event for event in seen if event[1] == "dead_letters_replayed"]


@pytest.mark.usefixtures("environ", "rejected")
def test_the_commands_say_how_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """Without metering the letters wait, which is exit 1; a table shows no control characters."""
    assert 0 == run(["dead-letters", "list"])
    table = capsys.readouterr().out
    assert "garbage ?[2J" in table
    assert 1 == run(["dead-letters", "replay", "1", "--wait-s", "0", "--json"])
    assert {"wanted": 1, "settled": 0, "waiting": 1} == json.loads(capsys.readouterr().out)
    assert 1 == run(["dead-letters", "replay", "--wait-s", "0"])
    assert "0 of 2 replayed. 2 wait for metering" in capsys.readouterr().out
    assert 0 == run(["dead-letters", "list", "--json"])
    assert [True, True, False] == [letter["is_wanted"] for letter in json.loads(capsys.readouterr().out)]


@pytest.mark.usefixtures("environ")
def test_no_letter_is_good_news(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to list and nothing to replay is no failure."""
    assert 0 == run(["dead-letters", "list"])
    assert 0 == run(["dead-letters", "replay"])
    assert "No dead letter: every line was understood.\nNo dead letter waits" in capsys.readouterr().out

"""`alerts test` and `alerts list`, and which receivers may be named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from authz.__main__ import run
from authz.alerts.alert import BUDGET_USED, Alert
from authz.alerts.book import Book
from authz.backends.address import receiver as refusal
from authz.store import Store
from tests.authz.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with receiving() as made:
        yield made


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://hooks.slack.com/services/T0/B0/x", None),
        ("http://ntfy:8080/topic?template=yes&message={{.text}}", None),
        ("https://[::1]:9/a%20b", None),
        ("hooks.example.com/x", "is no URL of a receiver"),
        ("ftp://h/x", "is no URL of a receiver"),
        ("https:///x", "is no URL of a receiver"),
        ("https://h:0/x", "is no URL of a receiver"),
        ("https://h:99999/x", "has no valid host and port"),
        ("https://user:SECRET@h/x", "has a login or a fragment"),
        ("https://h/x#SECRET", "has a login or a fragment"),
        ("https://h/x y", "holds characters"),
        ("https://h/ä", "holds characters"),
        ("http://169.254.169.254/x", "names a link-local"),
        ("http://metadata.google.internal/x", "names a link-local"),
        ("http://[fe80::1]/x", "names a link-local"),
    ],
)
def test_a_receiver_is_a_url_that_may_be_posted_to(url: str, problem: str | None) -> None:
    """A receiver has a host as a backend has, with any path and query; a refusal repeats no secret."""
    found = refusal(url)
    assert (found or "None").startswith(str(problem))
    assert found is None or (": write one like https://" in found and "SECRET" not in found)


def test_an_alert_is_posted_by_hand(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`alerts test` posts one with the token of the file, and says what the receiver answered, or why not."""
    token = tmp_path / "token"
    token.write_text("SECRET\n")
    token.chmod(0o600)
    monkeypatch.setenv("GATEWAY_STATE", str(tmp_path))
    monkeypatch.delenv("GATEWAY_ALERT_URL", raising=False)
    assert 1 == run(["alerts", "test"])
    assert "No receiver is set" in capsys.readouterr().err
    monkeypatch.setenv("GATEWAY_ALERT_URL", f"{receiver.url}/SECRET")
    monkeypatch.setenv("GATEWAY_ALERT_TOKEN_FILE", str(token))
    assert 0 == run(["alerts", "test"])
    assert "The receiver answered 200.\n" == capsys.readouterr().out
    assert ("test", "info", "Bearer SECRET") == (
        receiver.bodies[0]["name"],
        receiver.bodies[0]["severity"],
        receiver.headers[0]["authorization"],
    )
    receiver.answers = [403]
    assert 1 == run(["alerts", "test"])
    shown = capsys.readouterr()
    assert "The receiver of GATEWAY_ALERT_URL answers 403: check the URL" in shown.err
    assert "SECRET" not in shown.out + shown.err
    token.chmod(0o604)
    assert 1 == run(["alerts", "test"])
    assert "chmod o= " in capsys.readouterr().err


async def test_alerts_are_listed(
    outside: None, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`alerts list` shows what was raised, and what of it was posted."""
    assert 0 == await asyncio.to_thread(run, ["alerts", "list"])
    assert "Nothing has needed a person." in capsys.readouterr().out
    spent = Alert(
        kind=BUDGET_USED, subject="acme/a/day", summary="a is used up", value=100, tenant="acme", key="a"
    )
    await Book(store).add("books", [spent], at=datetime.now(UTC))
    assert 0 == await asyncio.to_thread(run, ["alerts", "list", "--json"])
    (listed,) = json.loads(capsys.readouterr().out)
    assert ("budget_used", "acme", "a", None, True) == (
        listed["name"],
        listed["tenant"],
        listed["key"],
        listed["posted"],
        listed["is_queued"],
    )
    assert 0 == await asyncio.to_thread(run, ["alerts", "list"])
    assert "a is used up" in capsys.readouterr().out

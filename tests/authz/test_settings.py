"""Settings: read once, named when they are wrong, with every secret kept out of the sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from attrs import fields
from hypothesis import example, given
from hypothesis import strategies as st

from authz import settings
from authz.backends import backend
from authz.backends.backend import Backend
from authz.errors import SettingsError
from authz.settings import Settings

STORES = {"DATABASE_URL": "postgresql://p", "REDIS_URL": "unix://r"}


def test_defaults_lie_in_the_state_folder() -> None:
    """A file without a setting of its own lies in the state folder."""
    read = settings.load(STORES, state=Path("/s"))
    assert [Path("/s/pepper"), Path("/s/run/control.sock")] == [read.pepper_file, read.control]
    assert Path("/elsewhere") == settings.load(STORES | {"GATEWAY_PEPPER_FILE": "/elsewhere"}).pepper_file


def test_every_number_is_read_and_bounded() -> None:
    """A number of every setting is read at its bounds, and refused beyond them, by the variable's name."""
    numbers = [setting for setting in fields(Settings) if setting.type is int]
    assert 14 == len(numbers)
    for setting in numbers:
        variable, bounds = setting.metadata["variable"], setting.metadata["bounds"]
        for value in (bounds[0], bounds[-1]):
            assert value == getattr(settings.load(STORES | {variable: str(value)}), setting.name)
        for text in (str(bounds[0] - 1), str(bounds[-1] + 1), "1.5", "many"):
            with pytest.raises(SettingsError, match=f"^{variable}={text} is no number in its bounds: write"):
                settings.load(STORES | {variable: text})


def test_backends_are_read() -> None:
    """The list has every field of a backend; one URL is the short form of it."""
    listed = '[{"name": "gpu", "url": "gpu:11434/", "token": "t", "header": "X-Key", "scheme": ""}]'
    assert (Backend("gpu", "http://gpu:11434", "t", "X-Key", ""),) == backend.parse(listed, "http://other")
    assert (Backend("default", "http://h:1"),) == backend.parse("", "h:1")
    assert () == backend.parse(None, None)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "{}",
        '"abc"',
        "[1]",
        "[[]]",
        '[{"name": "a"}]',
        '[{"name": 5, "url": "h"}]',
        '[{"name": "a", "url": "h", "token": ["SECRET"]}]',
        '[{"name": "a", "url": "h", "tokn": "SECRET"}]',
        '[{"name": "A b", "url": "h"}]',
        '[{"name": "a", "url": "h", "max_in_flight": "4"}]',
        '[{"name": "a", "url": "h", "max_in_flight": true}]',
        '[{"name": "a", "url": "h", "max_in_flight": 0}]',
        '[{"name": "a", "url": "ftp://h"}]',
        '[{"name": "a", "url": "h"}, {"name": "a", "url": "i"}]',
    ],
)
def test_backends_that_are_none_are_refused(text: str) -> None:
    """A malformed list of backends is refused in one sentence, which repeats no token."""
    with pytest.raises(SettingsError) as refused:
        backend.parse(text, None)
    assert "SECRET" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "days"), [({}, 0), ({"GATEWAY_LEDGER_DAYS": "0"}, 0), ({"GATEWAY_LEDGER_DAYS": "90"}, 90)]
)
def test_how_long_the_ledger_is_kept_is_a_setting(said: dict[str, str], days: int) -> None:
    """GATEWAY_LEDGER_DAYS says how many days stay; 0, the default, keeps all."""
    assert days == settings.load(STORES | said).ledger_days


@pytest.mark.parametrize("said", ["-1", "ever", "1.5"])
def test_a_ledger_kept_for_no_number_of_days_is_refused(said: str) -> None:
    """Rather no start than a ledger dropped by mistake."""
    with pytest.raises(SettingsError, match="GATEWAY_"):
        settings.load(STORES | {"GATEWAY_LEDGER_DAYS": said})


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    """Whatever is wrong with a configuration is said in one go, a sentence each, and no secret in any."""
    wrong = {
        "DATABASE_URL": "postgresql://gateway:SECRET@1/2@postgres/gateway",
        "REDIS_URL": "http://SECRET@redis",
        "OLLAMA_BACKENDS": '[{"name": "A b", "url": "h"}, {"name": "b", "url": "ftp://h"}]',
        "GATEWAY_DEADLINE_S": "soon",
        "GATEWAY_JOURNAL": "a\nb",
        "GATEWAY_QUEUE_MS": "1001",
    }
    with pytest.raises(SettingsError) as refused:
        settings.load(wrong, state=tmp_path)
    sentences = str(refused.value).splitlines()
    beginnings = (
        "DATABASE_URL can't be read",
        "REDIS_URL is no URL of a Redis",
        "GATEWAY_JOURNAL='a\\nb' holds a control character",
        "GATEWAY_DEADLINE_S=soon is no number",
        "GATEWAY_QUEUE_MS=1001 is no number",
        "The backend name 'A b' can't be used",
        "backend b",
    )
    assert [True] * 7 == list(map(str.startswith, sentences, beginnings)), sentences
    assert len(beginnings) == len(sentences)
    assert "SECRET" not in str(refused.value)


def test_a_service_that_cannot_start_says_all(tmp_path: Path) -> None:
    """authz ends before it opens anything, with exit code 2 and a line for each problem."""
    socket = tmp_path / "authz.sock"
    command = [sys.executable, "-m", "uvicorn", "--uds", str(socket), "--factory", "authz.app:create"]
    wrong = {"GATEWAY_DEADLINE_S": "soon", "GATEWAY_POLL_S": "0", "GATEWAY_STATE": str(tmp_path)}
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **STORES, **wrong},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (2, "", False) == (done.returncode, done.stdout, socket.exists())
    assert 2 == len(
        re.findall(r"^error: GATEWAY_\w+=\w+ is no number in its bounds: ", done.stderr, re.MULTILINE)
    )
    assert 2 == done.stderr.count("\n")

    right = {"PATH": os.environ["PATH"], **STORES, "GATEWAY_STATE": str(tmp_path)}
    done = subprocess.run(command, env=right, capture_output=True, text=True, check=False)
    assert (2, 1) == (done.returncode, done.stderr.count("\n"))
    assert done.stderr.startswith(f"error: There is no pepper file {tmp_path}/pepper: ")


_signs = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1)
_meant = "postgres", "/gateway"


def _where(url: str) -> tuple[str | None, str] | str:
    """Return the host and path that a URL is read as, or why it is refused."""
    try:
        read = settings.load({"DATABASE_URL": url, "REDIS_URL": "redis://r"})
    except SettingsError as refused:
        return str(refused)
    parts = urlsplit(read.database_url)
    return parts.hostname, parts.path


@given(_signs)
@example("p@ss/w:rd#1")
@example("1?a")
def test_no_piece_of_a_password_is_taken_for_a_host(password: str) -> None:
    """A URL whose password ends early is refused; one that is taken names the host that was meant."""
    found = _where(f"postgresql://gateway:{password}@postgres/gateway")
    assert found == _meant or "name its file in DATABASE_PASSWORD_FILE" in found


def test_a_password_may_stand_in_a_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A password of any signs, in a file, reaches Postgres as it is; the line's end is no part of it."""
    path = tmp_path_factory.mktemp("s") / "password"
    given_ = {
        "DATABASE_URL": "postgresql://gateway:old@postgres:5433/gateway?sslmode=disable",
        "REDIS_URL": "redis://r",
        "DATABASE_PASSWORD_FILE": str(path),
    }
    path.touch(mode=0o600)
    for password in ("p@ss/w:rd#1", "a b%20[c]?{}'\"\\", "pässwort", "plain-password"):
        path.write_text(f"{password}\n")
        parts = urlsplit(settings.load(given_).database_url)
        assert ("gateway", password) == (parts.username, unquote(parts.password or ""))
        assert ("postgres:5433", "/gateway", "sslmode=disable") == (
            parts.netloc.rpartition("@")[2],
            parts.path,
            parts.query,
        )
        assert password not in repr(settings.load(given_))


@pytest.mark.parametrize(
    ("text", "mode", "url", "expected"),
    [
        (None, 0, "postgresql://u@h/d", "can't be read by user"),
        ("p", 0o604, "postgresql://u@h/d", "chmod o= "),
        ("\n", 0o600, "postgresql://u@h/d", "is empty: write the secret"),
        ("p", 0o600, "postgresql://h/d", "names no user whose password it could be"),
    ],
)
def test_a_password_file_that_cannot_serve(
    tmp_path: Path, text: str | None, mode: int, url: str, expected: str
) -> None:
    """A file that is missing, open to others or empty is one sentence."""
    path = tmp_path / "password"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(SettingsError) as refused:
        settings.load({"DATABASE_URL": url, "REDIS_URL": "redis://r", "DATABASE_PASSWORD_FILE": str(path)})
    assert expected in str(refused.value)
    assert 1 == len(str(refused.value).splitlines())

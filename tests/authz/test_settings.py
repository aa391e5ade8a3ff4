"""Settings: read once, named when they are wrong, with every secret kept out of the sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import fields

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
    assert 12 == len(numbers)
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

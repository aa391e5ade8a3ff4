"""What a check has found: a level, and a sentence that says what to do unless all is well."""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen


class Level(StrEnum):
    """How bad a finding is; only a failure makes the command fail."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@frozen
class Finding:
    """One line of the report."""

    level: Level
    check: str
    sentence: str


def ok(check: str, sentence: str) -> Finding:
    """Say that all is well, and by what it was seen."""
    return Finding(Level.OK, check, sentence)


def warn(check: str, sentence: str) -> Finding:
    """Say what should be changed."""
    return Finding(Level.WARN, check, sentence)


def fail(check: str, sentence: str) -> Finding:
    """Say what is broken or open, and what to do."""
    return Finding(Level.FAIL, check, sentence)


def summed(check: str, found: list[Finding], fine: str) -> list[Finding]:
    """Return what was found, or else the one line that all of a check is well."""
    return found or [ok(check, fine)]

"""`doctor` on a whole stack."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.up.stacks import Stack

pytestmark = pytest.mark.timeout(300)


def _report(stack: Stack) -> tuple[int, list[tuple[str, str]]]:
    done = stack.run("doctor", "--json")
    findings = json.loads(done.stdout)["findings"]
    return done.returncode, [(each["level"], each["check"]) for each in findings]


def test_a_stack_as_it_comes_up(running: Stack) -> None:
    """Nothing is wrong with it but that it was never backed up; everything was looked at."""
    code, found = _report(running)

    assert 0 == code
    assert [("warn", "backup")] == [each for each in found if each[0] != "ok"]
    parts = (
        "version caddy guard site authz postgres migrations roles backup redis metering clocks journal bill"
    )
    assert [*parts.split(), "files", "private-keys", "disk", "backends"] == [check for _, check in found]


def test_parts_that_do_not_answer(running: Stack) -> None:
    """A process that hangs is named, though its socket is there; the others are judged all the same."""
    hanging = [pid for name in ("authz-1", "metering") if (pid := running.pid(name)) is not None]
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)
    try:
        code, found = _report(running)
    finally:
        for pid in hanging:
            os.kill(pid, signal.SIGCONT)

    assert 1 == code
    assert {("fail", "authz"), ("warn", "bill"), ("warn", "backup")} == {
        each for each in found if each[0] != "ok"
    }

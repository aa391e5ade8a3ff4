"""Processes are known by number and start time, so that no other one is ever ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.errors import CommandError
from authz.stack import facts
from authz.stack.facts import Facts, Process
from authz.stack.folder import StateFolder


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends only by a signal."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_process_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    """A process that was observed is ended."""
    observed = facts.observe("sleeper", sleeper.pid)
    assert observed is not None

    facts.end([observed], timeout_s=10)

    assert sleeper.wait() == -15
    assert not facts.is_alive(observed)


def test_other_process_with_the_same_number_is_spared(sleeper: subprocess.Popen[bytes]) -> None:
    """A number that was given to another process since is no reason to end that one."""
    observed = facts.observe("sleeper", sleeper.pid)
    assert observed is not None

    facts.end([Process("sleeper", sleeper.pid, observed.started - 1)], timeout_s=10)

    assert facts.is_alive(observed)


def test_process_that_does_not_listen_is_killed() -> None:
    """A process that ignores SIGTERM is killed."""
    argv = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 600; done"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        observed = facts.observe("deaf", deaf.pid)
        assert observed is not None

        facts.end([observed], timeout_s=0.1)

        assert deaf.wait() == -9
        os.killpg(deaf.pid, 9)


def test_facts_are_read_as_written(tmp_path: Path) -> None:
    """Facts that one command records, the next one reads."""
    folder = StateFolder(tmp_path)
    process = Process("caddy", 12, 34)
    written = Facts(url="http://x", supervisor=process, tenant="demo", processes=(process,))

    facts.save_facts(folder, written)

    assert written == facts.load_facts(folder)


def test_damaged_facts_are_refused(tmp_path: Path) -> None:
    """Facts that cannot be read must not pass for a stack that does not run."""
    folder = StateFolder(tmp_path)
    folder.facts.write_text("{")

    with pytest.raises(CommandError, match="is damaged"):
        facts.load_facts(folder)

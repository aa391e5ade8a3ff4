"""A child gets from Linux an owner that its program accepts, and eyes for closed folders."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from authz.stack import machine
from authz.stack.program import Layer, Program

LOOK = "import os, sys; print(os.getuid(), os.access(sys.argv[1], os.R_OK), open(sys.argv[1]).read())"
PR_CAPBSET_DROP, CAP_SETPCAP = 24, 8


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A file in a folder that its owner alone may enter, as /root is."""
    file = tmp_path / "closed" / "file"
    file.parent.mkdir()
    file.write_text("read")
    file.chmod(0o600)
    file.parent.chmod(0o700)
    return file


def _program(log: Path, *argv: str) -> Program:
    user = machine.unprivileged_user()
    # Without what measures coverage in children: another user can't write its data.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return Program(name="x", argv=argv, log=log, layer=Layer.STORE, environ=environ, user=user)


def test_closed_folder_can_be_read(closed: Path, tmp_path: Path) -> None:
    """A program that refuses root is another user, and still finds what lies in a home of mode 0700.

    open(2) and access(2) must agree: PostgreSQL asks the second before it tries the first.
    """
    log = tmp_path / "log"

    assert 0 == _program(log, sys.executable, "-c", LOOK, str(closed)).spawn().wait()

    user, *seen = log.read_text().split()
    assert ["True", "read"] == seen
    assert 0 != int(user)


def _withhold_setpcap() -> None:
    ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SETPCAP, 0, 0, 0)


def test_folder_that_stays_closed_is_named(closed: Path, tmp_path: Path) -> None:
    """If a container withholds the means, one sentence names the folder and what to do."""
    if os.geteuid() == 0:
        argv = _program(tmp_path / "log", str(closed)).command()
        done = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=_withhold_setpcap)
        sentence = done.stderr.strip()
    else:
        closed.parent.chmod(0)
        with pytest.raises(SystemExit) as ended:
            machine._refuse_closed(str(closed))
        sentence = str(ended.value)
        closed.parent.chmod(0o700)

    # The whole of pytest's folder may be closed, then the outermost one is named.
    assert any(sentence.startswith(f"{folder} can't be entered by user ") for folder in closed.parents)
    assert sentence.endswith("run `up` as a plain user, install elsewhere, or set DATABASE_URL.")
    assert 1 == len(sentence.splitlines())


def test_start_is_known_until_the_end() -> None:
    """A process has one start, and none once it has ended, waited for or not."""
    with subprocess.Popen(["sleep", "600"]) as process:
        first = machine.started(process.pid)
        assert first is not None
        assert first == machine.started(process.pid)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert machine.started(process.pid) is None
    assert machine.started(process.pid) is None

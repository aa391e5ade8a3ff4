"""An env file has one line replaced, whatever else it holds and whatever happens meanwhile."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.backends import env_file
from authz.errors import CommandError

VALUE = r'[{"name":"a","token":"$HOME`x`\"# \u0027"}]'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "V='1'\n"),
        ("A=1\n", "A=1\nV='1'\n"),
        ("A=1", "A=1\nV='1'\n"),
        ("A=1\r\n", "A=1\r\nV='1'\r\n"),
        ("# V=0\nV=0\nB=2\n", "# V=0\nV='1'\nB=2\n"),
        ("V=0 # why\nB=2\n", "V='1' # why\nB=2\n"),
        ("V='a\nb'\nB=2\n", "V='1'\nB=2\n"),
        ('export V = "0"\r\nB=2', "export V='1'\r\nB=2"),
        ("V=0\nB=2\nV=3\n", "B=2\nV='1'\n"),
        ("XV=0\nVX=0\n", "XV=0\nVX=0\nV='1'\n"),
        ("V=", "V='1'\n"),
    ],
)
def test_one_line_is_replaced(before: str, after: str) -> None:
    """The line is replaced in its place, else added; the rest is kept, and a second time changes nothing."""
    assert after == env_file.rewritten(before, "V", "1")
    assert after == env_file.rewritten(after, "V", "1")
    assert "1" == env_file.value_of(after, "V")


_plain = st.text(st.characters(exclude_characters="'\"\r\n", codec="utf-8"))


@given(_plain, _plain)
def test_what_is_written_is_read(value: str, before: str) -> None:
    """Whatever the file held, the value is read as it was written."""
    assert value == env_file.value_of(env_file.rewritten(f"{before}\n", "V", value), "V")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("V=[1] # x", "[1]"),
        ("V='[1]' # x", "[1]"),
        (r'V="[\"\$a\"]"', '["$a"]'),
        ("V=", ""),
        ("W=1", None),
        ("#V=1", None),
        ("V=1\nV=2", "2"),
    ],
)
def test_values_are_read_as_compose_reads_them(text: str, value: str | None) -> None:
    """Quotes and comments are no part of a value; the last assignment counts."""
    assert value == env_file.value_of(text, "V")


def test_a_shell_reads_the_same() -> None:
    """A token may hold what a shell, Compose or `just` would replace: the quotes keep it."""
    script = f'{env_file.line("V", VALUE)}; printf %s "$V"'

    assert (
        VALUE == subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout
    )


def test_file_keeps_its_mode_and_owner(tmp_path: Path) -> None:
    """The content changes, nothing else, and no other file is left."""
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    old = path.stat()

    env_file.write(path, "A=2\n", expected="A=1\n")

    new = path.stat()
    assert "A=2\n" == path.read_text()
    assert (old.st_mode, old.st_uid, old.st_gid) == (new.st_mode, new.st_uid, new.st_gid)
    assert [path] == list(tmp_path.iterdir())


def test_new_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """A file that is made may hold tokens."""
    env_file.write(tmp_path / ".env", "A=1\n", expected="")

    assert 0o600 == stat.S_IMODE((tmp_path / ".env").stat().st_mode)


def test_newer_content_is_kept(tmp_path: Path) -> None:
    """What an editor saved since the file was read is not overwritten."""
    (tmp_path / ".env").write_text("A=2\n")

    with pytest.raises(CommandError, match="changed meanwhile"):
        env_file.write(tmp_path / ".env", "A=1\nV=1\n", expected="A=1\n")
    assert "A=2\n" == (tmp_path / ".env").read_text()


@pytest.mark.parametrize("kind", ["folder", "symlink", "not UTF-8", "read-only", "no folder", "dangling"])
def test_unfit_files_are_refused(tmp_path: Path, kind: str) -> None:
    """What can't be replaced is refused in one sentence and stays as it is."""
    path = tmp_path / ".env"
    if kind == "folder":
        path.mkdir()
    elif kind == "symlink":
        (tmp_path / "real").write_text("A=1\n")
        path.symlink_to("real")
    elif kind == "dangling":
        path.symlink_to("nothing")
    elif kind == "not UTF-8":
        path.write_bytes(b"A=\xff\n")
    elif kind == "read-only":
        path.write_text("A=1\n")
        path.chmod(0o444)
    else:
        path = tmp_path / "none" / ".env"
    before = sorted(tmp_path.iterdir())

    with pytest.raises(CommandError) as refused:
        env_file.refuse_unwritable(path)
    with pytest.raises(CommandError):
        env_file.write(path, "B=1\n", expected="A=1\n")
    assert 1 == len(str(refused.value).splitlines())
    assert before == sorted(tmp_path.iterdir())


CRASH = """
import os, signal, sys
from pathlib import Path
from authz.backends import env_file

calls = 0
def trace(frame, event, _):
    global calls
    if event == "line" and frame.f_code.co_filename == env_file.__file__:
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
path = Path(sys.argv[1])
sys.settrace(trace)
env_file.write(path, "new" * 100_000, expected="old" * 100_000)
"""


def test_crash_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    """A process that is killed at any line leaves a whole file, and the next one writes it."""
    path, ends, line = tmp_path / ".env", set(), 0
    code = -9
    while code == -9:
        line += 2
        path.write_text("old" * 100_000)
        code = subprocess.run([sys.executable, "-c", CRASH, str(path), str(line)], check=False).returncode
        ends.add((code, path.read_text()[:3]))
        assert path.read_text() in {"old" * 100_000, "new" * 100_000}
    assert {(-9, "old"), (-9, "new"), (0, "new")} == ends

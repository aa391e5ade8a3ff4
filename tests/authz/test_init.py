"""`init` writes what a first start needs, and never replaces a secret."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from authz.__main__ import run
from authz.backends import env_file
from authz.configuration import example, initial
from authz.errors import CommandError
from authz.identity.secrets import Peppers


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of a deployment, which commands run in."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_first_init_writes_all(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An env file for its owner alone with the domain in it, and two secrets for the containers' user."""
    assert 0 == run(["init", "--domain", "gw.example.com"])
    said = capsys.readouterr().out

    assert example.text({"GATEWAY_DOMAIN": "gw.example.com"}) == (folder / ".env").read_text()
    pepper, password = folder / "secrets" / "pepper", folder / "secrets" / "postgres_password"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder / ".env", pepper.parent, pepper, password)]
    assert [0o600, 0o700, 0o400, 0o440] == modes
    assert 1 == len(Peppers.read(pepper).alive)
    assert re.fullmatch(r"[A-Za-z0-9_-]{40,}\n", password.read_text())
    assert {".env", "secrets/pepper", "secrets/postgres_password"} == contents(folder).keys()
    is_root = os.geteuid() == 0
    assert is_root == (pepper.stat().st_uid == password.stat().st_gid == 65532)
    assert is_root != ("sudo chown 65532:65532 secrets/pepper secrets/postgres_password" in said)
    assert pepper.read_text() not in said


def test_a_second_init_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What exists stays, byte for byte, whatever options are given."""
    assert 0 == run(["init", "--domain", "gw.example.com"])
    before = contents(folder)
    capsys.readouterr()
    for options in (
        [],
        ["--domain", "gw.example.com"],
        ["--force"],
        ["--force", "--domain", "gw.example.com"],
    ):
        assert 0 == run(["init", *options])
        assert before == contents(folder)
        assert "written" not in capsys.readouterr().out


def test_programs_read_what_was_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json names the files that were written and those that were there, never what is in them."""
    paths = {".env", "secrets/pepper", "secrets/postgres_password"}
    assert 0 == run(["init", "--json"])
    first = json.loads(capsys.readouterr().out)
    assert (paths, []) == (set(first["written"]), first["kept"])
    assert "Set GATEWAY_DOMAIN in .env" in first["notes"][-1]
    assert 0 == run(["init", "--json"])
    again = json.loads(capsys.readouterr().out)
    assert (paths, []) == (set(again["kept"]), again["written"])


def test_secrets_outlive_another_domain(folder: Path) -> None:
    """--force replaces the domain, and no secret: keys and the database depend on them."""
    assert 0 == run(["init", "--domain", "old.example.com"])
    before = contents(folder)
    assert 0 == run(["init", "--domain", "new.example.com", "--force"])
    after = contents(folder)
    assert before.pop(".env").replace(b"old.", b"new.") == after.pop(".env")
    assert before == after


def test_an_env_file_is_filled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that lacks the domain gets it, and keeps all else; a file that has another one is refused."""
    (folder / ".env").write_text("# mine\nGATEWAY_DOMAIN=\nOLLAMA_URL=http://h:1\n")
    assert 0 == run(["init"])
    assert "Set GATEWAY_DOMAIN in .env before the first start" in capsys.readouterr().out
    assert 0 == run(["init", "--domain", "gw.example.com"])
    assert "# mine\nGATEWAY_DOMAIN='gw.example.com'\nOLLAMA_URL=http://h:1\n" == (folder / ".env").read_text()
    before = contents(folder)
    assert 1 == run(["init", "--domain", "other.example.com"])
    assert "has GATEWAY_DOMAIN=gw.example.com already: replace it with --force." in capsys.readouterr().err
    assert before == contents(folder)


@pytest.mark.parametrize("kind", ["domain", "no folder", "dangling link", "secrets is a file"])
def test_what_cannot_be_done_writes_nothing(
    folder: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refusal is one sentence, and neither a secret nor an env file is left of it."""
    arguments, code = ["init"], 1
    if kind == "domain":
        arguments, code = ["init", "--domain", "https://gw.example.com"], 2
    elif kind == "no folder":
        arguments = ["init", "--write-env", "nowhere/.env"]
    elif kind == "dangling link":
        (folder / ".env").symlink_to("nothing")
    else:
        (folder / "secrets").write_text("mine")
    before = contents(folder)
    assert code == run(arguments)
    assert 1 == capsys.readouterr().err.count("\n")
    assert before == contents(folder)
    assert not (folder / "secrets").is_dir()


def test_secrets_that_others_may_read_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A secret that was there with too wide a mode stays, and the command that mends it is printed."""
    assert 0 == run(["init"])
    (folder / "secrets" / "pepper").chmod(0o644)
    assert 0 == run(["init"])
    assert (
        "secrets/pepper can be read by others: run `chmod 0400 secrets/pepper`.\n" in capsys.readouterr().out
    )


CRASH = """
import os, signal, sys
from pathlib import Path
from authz.configuration import initial

calls = 0
def trace(frame, event, _):
    global calls
    if event == "line" and frame.f_code.co_filename == initial.__file__:
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
initial.initialise(Path(sys.argv[1]), domain="gw.example.com", is_forced=False)
"""


def test_a_crash_leaves_whole_secrets_or_none(tmp_path: Path) -> None:
    """A process that is killed at any line leaves no part of a secret, and the next one ends the work."""
    code, line, seen = -9, 0, set()
    while code == -9:
        line += 4
        env = tmp_path / str(line) / ".env"
        env.parent.mkdir()
        code = subprocess.run([sys.executable, "-c", CRASH, str(env), str(line)], check=False).returncode
        left = {name: text for name, text in contents(env.parent).items() if not name.endswith(".new")}
        seen.add((code, *sorted(left)))
        initial.initialise(env, domain="gw.example.com", is_forced=False)
        after = contents(env.parent)
        assert left.items() <= after.items()
        assert {".env", "secrets/pepper", "secrets/postgres_password"} == after.keys()
        assert 1 == len(Peppers.read(env.parent / "secrets" / "pepper").alive)
    assert {(-9,), (-9, "secrets/pepper"), (-9, "secrets/pepper", "secrets/postgres_password")} < seen


def test_several_at_once_make_one_pepper(tmp_path: Path) -> None:
    """Whoever runs it at the same moment finds what the first has written; nothing is overwritten."""
    env = tmp_path / ".env"
    command = [sys.executable, "-m", "authz", "init", "--write-env", str(env)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    ended = [(process.communicate()[0].decode(), process.returncode) for process in running]
    assert {0} == {code for _, code in ended}
    for name in (".env", "secrets/pepper", "secrets/postgres_password"):
        assert 1 == sum(f"written  {tmp_path}/{name}\n" in said for said, _ in ended)
    assert {".env", "secrets/pepper", "secrets/postgres_password"} == contents(tmp_path).keys()
    assert "" == (env_file.value_of(env.read_text(), "GATEWAY_DOMAIN"))


def test_a_domain_is_checked_before_all_else(tmp_path: Path) -> None:
    """A domain that is none is refused where anything else would be, too."""
    with pytest.raises(CommandError, match="is no domain: write it like"):
        initial.initialise(tmp_path / "nowhere" / ".env", domain="localhost", is_forced=False)

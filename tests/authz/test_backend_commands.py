"""The commands about backends, word for word, on a real server and a real file."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from authz.__main__ import run
from tests.authz.backend_kinds import Scripted, ollama
from tests.backend.serving import served

BEFORE = "# ours\nA=1\nOLLAMA_URL=http://127.0.0.1:9 # one\nZ='z'\n"
SLOTS = ("--max-in-flight", "4")
DEAD = "http://127.0.0.1:9"


@define
class Shell:
    """Runs commands as an operator does, in a folder with an env file."""

    env: Path
    _capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command; returns its exit code and both outputs."""
        code = run([*arguments, "--state", str(self.env.parent / "none")])
        printed = self._capture.readouterr()
        return code, printed.out, printed.err

    def refusal(self, *arguments: str) -> str:
        """Run a command that refuses; returns its one sentence."""
        code, out, err = self(*arguments)
        assert (1, "", 1) == (code, out, len(err.splitlines()))
        return err


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """An operator whose env file names one backend by its URL."""
    for variable in ("OLLAMA_BACKENDS", "OLLAMA_URL", "GATEWAY_STATE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / ".env").write_text(BEFORE)
    return Shell(tmp_path / ".env", capsys)


@pytest.fixture
def app() -> Scripted:
    """An Ollama that keeps what it is sent."""
    return Scripted(ollama("m"))


@pytest.fixture
def url(app: Scripted) -> Iterator[str]:
    """Where it listens."""
    with served(app) as found:
        yield found


def entries(line: str) -> list[dict[str, str]]:
    """The list of a printed line, as a shell would read it."""
    script = f'{line.strip()}; printf %s "$OLLAMA_BACKENDS"'
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_line_is_ready_to_paste(
    shell: Shell, app: Scripted, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`add-backend NAME URL` probes with the headers of a request and prints one whole line."""
    monkeypatch.setenv("OLLAMA_URL", "http://ollama:11434")
    code, out, _ = shell(
        "add-backend", "gpu", url, "--token", "ABC", "--header", "X-Key", "--scheme", "", *SLOTS
    )

    assert (0, 1) == (code, len(out.splitlines()))
    gpu = {"name": "gpu", "url": url, "token": "ABC", "header": "X-Key", "scheme": "", "max_in_flight": 4}
    assert [{"name": "default", "url": "http://ollama:11434"}, gpu] == entries(out)
    assert "/api/tags" == app.asked[0]
    assert [(b"host", url.removeprefix("http://").encode()), (b"x-key", b"ABC")] == app.headers[0]

    monkeypatch.setenv("OLLAMA_BACKENDS", json.dumps(entries(out)))
    assert entries(shell("remove-backend", "default")[1]) == [gpu]


def test_programs_read_what_was_changed(shell: Shell, url: str) -> None:
    """--json has the new list, its line and where that stands; a written line shows no token."""
    add = ("add-backend", "a", url, "--token", "SECRET", "--json")
    _, out, err = shell(*add)
    printed = json.loads(out)
    assert [("a", "***")] == [(row["backend"], row["token"]) for row in printed["backends"]]
    assert [("a", "SECRET")] == [(entry["name"], entry["token"]) for entry in entries(printed["line"])]
    assert ([], False, "") == (printed["written"], printed["is_applied"], err)
    written = {}
    for line in ((*add, "--dry-run"), add, ("remove-backend", "a", "--json")):
        _, out, _ = shell(*line, "--write-env", str(shell.env))
        assert "SECRET" not in out
        written[line[0], len(line)] = json.loads(out)["written"]
    assert [[], [str(shell.env)], [str(shell.env)]] == list(written.values())
    assert ["default"] == [row["backend"] for row in json.loads(out)["backends"]]


def test_list_of_the_environment(shell: Shell, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`list-backends` and `probe-ollama` show every backend, tokens as ***; a dead one is exit code 1."""
    backends = [{"name": "a", "url": url, "token": "SECRET"}, {"name": "b", "url": DEAD}]
    monkeypatch.setenv("OLLAMA_BACKENDS", json.dumps(backends))

    _, table, _ = shell("list-backends")
    assert "***" in table
    _, listed, _ = shell("list-backends", "--json")
    assert ["***", None] == [row["token"] for row in json.loads(listed)]
    code, probed, _ = shell("probe-ollama", "--json")
    assert (1, ["m"], "0.1") == (code, json.loads(probed)[0]["models"], json.loads(probed)[0]["version"])
    assert "does not answer" in json.loads(probed)[1]["problem"]
    assert 0 == shell("probe-ollama", "a")[0]
    assert "there is a, b." in shell.refusal("probe-ollama", "c")
    assert "SECRET" not in table + listed + probed


def test_file_is_written_in_place(shell: Shell, url: str) -> None:
    """--write-env changes one line; the next command goes on from the file, a replacement in its place."""
    code, out, err = shell("add-backend", "a", url, "--token", "SECRET", "--write-env", str(shell.env))
    assert 0 == code
    assert "SECRET" not in out + err
    assert ["default", "a"] == [entry["name"] for entry in entries(out)]
    first = shell.env.read_text()
    assert first.startswith(BEFORE)
    assert "SECRET" in first

    write = ("--write-env", str(shell.env))
    assert 0 == shell("add-backend", "b", url, *write)[0]
    assert 0 == shell("add-backend", "a", f"{url}/", "--token", "NEW", "--replace", *write)[0]
    assert 0 == shell("remove-backend", "default", *write)[0]
    line = shell.env.read_text().removeprefix(BEFORE)
    assert [{"name": "a", "url": url, "token": "NEW"}, {"name": "b", "url": url}] == entries(line)
    again = shell.env.read_text()
    assert 0 == shell("add-backend", "a", url, "--token", "NEW", "--replace", *write)[0]
    assert again == shell.env.read_text()


def test_dry_run_writes_nothing(shell: Shell, url: str) -> None:
    """--dry-run shows the line without tokens, and leaves the file."""
    for write in ((), ("--write-env", str(shell.env))):
        code, out, err = shell("add-backend", "a", url, "--token", "SECRET", "--dry-run", *write)
        assert (0, "***") == (code, entries(out)[-1]["token"])
        assert "SECRET" not in out + err
    assert 0 == shell("remove-backend", "default", "--dry-run", "--write-env", str(shell.env))[0]
    assert BEFORE == shell.env.read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "ftp://h"), "scheme is neither"),
        (("a", "http://user:SECRET@h"), "--token-file"),
        (("a", "http://169.254.169.254"), "--allow-link-local"),
        (("a", "http://[::ffff:a9fe:a9fe]:80"), "--allow-link-local"),
        (("a", "http://2852039166"), "--allow-link-local"),
        (("a", "http://metadata.google.internal"), "--allow-link-local"),
        (("A b", DEAD), "lower-case letters"),
        (("default", DEAD), "--replace"),
        (("a", DEAD), "does not answer"),
        (("a", "http://none.invalid"), "does not answer"),
        (("a", DEAD, "--token", "SECRET\nX"), "what no header can"),
        (("a", DEAD, "--token-file", "/none"), "name a text file"),
        (("a", DEAD, "--header", "Host"), "name another"),
        (("a", DEAD, "--max-in-flight", "0"), "from 1 to 10,000"),
        (("a", DEAD, "--max-in-flight", "10001"), "from 1 to 10,000"),
    ],
)
def test_bad_input_leaves_the_file(shell: Shell, arguments: tuple[str, ...], words: str) -> None:
    """What can't be added is one sentence and exit code 1; the file is as it was."""
    refusal = shell.refusal("add-backend", *arguments, "--write-env", str(shell.env))

    assert words in refusal
    assert "SECRET" not in refusal
    assert BEFORE == shell.env.read_text()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "is no Ollama"),
        (b'{"models":[{"id":1}]}', "is no Ollama"),
        (b'{"data":[]}', "is no Ollama"),
    ],
)
def test_other_servers_are_refused(shell: Shell, app: Scripted, url: str, body: bytes, words: str) -> None:
    """A server that is no Ollama is not added, unless unseen."""
    app.answer = lambda _: body

    assert words in shell.refusal("add-backend", "a", url, "--write-env", str(shell.env))
    assert BEFORE == shell.env.read_text()
    assert 0 == shell("add-backend", "a", url, "--no-validate")[0]


def test_token_that_is_wrong_or_missing(shell: Shell, app: Scripted, url: str) -> None:
    """A backend that answers 401 is added only with the token that it wants."""
    app.accepted = b"Bearer RIGHT"
    for token in ((), ("--token", "WRONG")):
        refusal = shell.refusal("add-backend", "a", url, *token, "--write-env", str(shell.env))
        assert "refuses the token, or wants one (401 to GET /api/tags)" in refusal
        assert "WRONG" not in refusal
    assert BEFORE == shell.env.read_text()
    assert 0 == shell("add-backend", "a", url, "--token", "RIGHT", "--write-env", str(shell.env))[0]


@pytest.mark.parametrize(
    "text",
    [
        '[{"name":"a","url":"http://a"',
        '[{"name":"a","url":"http://a","tokn":"SECRET"}]',
        '[{"name":"a","url":"http://a"},{"name":"a","url":"http://b"}]',
    ],
)
@pytest.mark.parametrize("command", [("add-backend", "b", DEAD, "--no-validate"), ("remove-backend", "a")])
def test_damaged_list_is_left(shell: Shell, text: str, command: tuple[str, ...]) -> None:
    """A list that can't be read is named as such, and never replaced by a shorter one."""
    shell.env.write_text(f"OLLAMA_BACKENDS='{text}'\n")

    refusal = shell.refusal(*command, "--write-env", str(shell.env))

    assert "OLLAMA_BACKENDS" in refusal
    assert "SECRET" not in refusal
    assert f"OLLAMA_BACKENDS='{text}'\n" == shell.env.read_text()


def test_file_that_is_none(shell: Shell) -> None:
    """A folder, another encoding and a read-only file are refused before the backend is asked."""
    shell.env.chmod(0o444)
    assert "read-only" in shell.refusal("remove-backend", "default", "--write-env", str(shell.env))
    assert "can't be used" in shell.refusal("remove-backend", "x", "--write-env", str(shell.env.parent))
    shell.env.chmod(0o644)
    shell.env.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in shell.refusal("remove-backend", "x", "--write-env", str(shell.env))


def test_token_is_in_no_process_list(app: Scripted, url: str, tmp_path: Path) -> None:
    """C3: while a command runs, its arguments show no token; standard input never does."""
    asked, go_on = threading.Event(), threading.Event()
    real = app.answer

    def hold(path: str) -> bytes | None:
        asked.set()
        go_on.wait(20)
        return real(path)

    def lines(*arguments: str, typed: str | None = None) -> tuple[bytes, str]:
        app.answer = hold
        asked.clear()
        go_on.clear()
        argv = [sys.executable, "-m", "authz", "add-backend", "a", url, *arguments]
        with subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"GATEWAY_STATE": str(tmp_path / "none"), "PATH": ""},
        ) as process:
            if typed is not None and process.stdin:
                process.stdin.write(typed)
                process.stdin.close()
                process.stdin = None
            assert asked.wait(20)
            shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            go_on.set()
            return shown, process.communicate(timeout=20)[0]

    shown, out = lines("--token", "S3CRET-TOKEN")
    assert b"S3CRET-TOKEN" not in shown
    assert b"add-backend" in shown
    assert "S3CRET-TOKEN" == entries(out)[0]["token"]
    shown, out = lines("--token-file", "-", typed="S3CRET-TOKEN\n")
    assert b"S3CRET-TOKEN" not in shown
    assert "S3CRET-TOKEN" == entries(out)[0]["token"]


def test_render_alone(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """`render` makes the snippets of OLLAMA_BACKENDS in GATEWAY_BACKENDS, where no stack runs."""
    folder = tmp_path / "backends.d"
    monkeypatch.setenv("GATEWAY_BACKENDS", str(folder))
    assert "set OLLAMA_BACKENDS" in shell.refusal("render")
    monkeypatch.setenv("OLLAMA_BACKENDS", json.dumps([{"name": "a", "url": url}]))
    assert "make the folder" in shell.refusal("render")
    folder.mkdir()
    _, rendered, _ = shell("render", "--json")
    assert {"folder": str(folder), "is_applied": False} == json.loads(rendered)
    assert {"a.caddy", "backends.json"} == {path.name for path in folder.iterdir()}
    (folder / "a.caddy").write_text("# mine\n")
    assert "--force" in shell.refusal("render")
    assert 0 == shell("render", "--force")[0]

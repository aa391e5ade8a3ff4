"""`wire-multi-backend` finds the Ollama containers, and touches the env file last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import define

from authz.__main__ import run
from authz.backends.env_file import value_of
from tests.authz.backend_kinds import Scripted
from tests.authz.docker_standin import Docker, inspected
from tests.authz.json_names import ELSEWHERE, names_of
from tests.backend.serving import served

IMAGE = "ollama/ollama:0.15.4"
CADDY = inspected("gw-caddy-1", "neuronetz-gateway-caddy", "gw_llm_internal", "proxy")
OWN = inspected("gw-ollama-1", IMAGE, "gw_llm_internal")
NEURO = inspected("neuro_Ollama", IMAGE, "proxy", OLLAMA_AUTH="true", OLLAMA_AUTH_TOKEN="SECRET")
FAR = inspected("far", "docker.io/ollama/ollama@sha256:ab", "bridge", OLLAMA_HOST="0.0.0.0:8000")
OTHER = inspected("other", "example/ollama", "proxy")
LINE = (
    '[{"name":"embedded","url":"http://gw-ollama-1:11434"},'
    '{"name":"neuro-ollama","url":"http://neuro_ollama:11434","token":"SECRET"},'
    '{"name":"far","url":"http://far:8000"}]'
)


@define
class Host:
    """A machine with docker, a Compose project and a gateway that answers."""

    env: Path
    docker: Docker
    url: str
    _capture: pytest.CaptureFixture[str]

    def wire(self, *arguments: str) -> tuple[int, str, str]:
        """Run the command; returns its exit code and both outputs."""
        self.docker.install()
        code = run(["wire-multi-backend", "--env", str(self.env), "--url", self.url, *arguments])
        printed = self._capture.readouterr()
        assert "SECRET" not in printed.out + printed.err
        return code, printed.out, printed.err

    def refusal(self) -> str:
        """Run it in vain: one sentence, and nothing was changed."""
        before = self.env.read_text()
        code, _, err = self.wire()
        assert (1, 1) == (code, len(err.splitlines()))
        assert before == self.env.read_text()
        assert not [call for call in self.docker.calls() if "up" in call or "connect" in call]
        return err


@pytest.fixture
def host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Host]:
    """Two containers that share a network with the gateway, and one that shares none."""
    docker = Docker(tmp_path / "bin", [NEURO, OTHER, CADDY, FAR, OWN])
    monkeypatch.setenv("PATH", str(docker.folder))
    # `just` has loaded the old file: Compose would prefer this to the new one.
    monkeypatch.setenv("OLLAMA_BACKENDS", '[{"name":"stale","url":"http://stale"}]')
    (tmp_path / ".env").write_text("A=1 # kept\n")
    with served(Scripted(lambda _: b'{"status":"ok"}')) as url:
        yield Host(tmp_path / ".env", docker, url, capsys)


def test_every_container_is_wired(host: Host) -> None:
    """Embedded first, then the order found; attached where needed; recreated, awaited, probed, listed."""
    code, out, err = host.wire()

    assert (0, "") == (code, err)
    assert LINE == value_of(host.env.read_text(), "OLLAMA_BACKENDS")
    assert host.env.read_text().startswith("A=1 # kept\n")
    assert f"OLLAMA_BACKENDS='{LINE.replace('SECRET', '***')}'\n" == out
    project = ["compose", "--project-directory", str(host.env.parent)]
    assert [
        ["network", "connect", "proxy", "far"],
        [*project, "up", "--detach"],
        [*project, "ps", "--quiet", "--no-trunc", "caddy"],
        [*project, "kill", "--signal", "SIGUSR1", "caddy"],
        [*project, "exec", "--no-TTY", "authz-0", "neuronetz-gateway", "probe-ollama"],
        [*project, "exec", "--no-TTY", "authz-0", "neuronetz-gateway", "list-backends"],
    ] == host.docker.calls()[3:]
    assert {None} == host.docker.seen_backends()


def test_programs_read_what_was_wired(host: Host) -> None:
    """--json has the new list, what was attached, and what the gateway says of each."""
    rows = [{"backend": "far", "problem": None}]
    host.docker.replies["compose exec"] = (0, json.dumps(rows), "")
    code, out, err = host.wire("--json", "--dry-run")
    dry = json.loads(out)
    assert (0, "", [], False) == (code, err, dry["written"], dry["is_applied"])
    code, out, err = host.wire("--json")
    made = json.loads(out)
    assert (0, "", [str(host.env)], True) == (code, err, made["written"], made["is_applied"])
    assert ["embedded", "neuro-ollama", "far"] == [row["backend"] for row in made["backends"]]
    assert ELSEWHERE["wire-multi-backend"] == set(names_of(made))
    assert (["far"], rows) == (made["attached"], made["probed"])
    assert dry == {name: value for name, value in made.items() if name != "probed"} | {
        "written": [],
        "is_applied": False,
    }
    host.docker.replies["compose exec"] = (0, "ready", "")
    code, _, err = host.wire("--json")
    assert (1, True) == (code, "printed no JSON" in err)


def test_same_again_is_the_same_line(host: Host) -> None:
    """A second run changes nothing in the file, and attaches nothing twice."""
    host.wire()
    once, calls = host.env.read_bytes(), len(host.docker.calls())
    host.docker.containers[3] = inspected(
        "far", "docker.io/ollama/ollama@sha256:ab", "bridge", "proxy", OLLAMA_HOST="0.0.0.0:8000"
    )

    assert 0 == host.wire()[0]
    assert once == host.env.read_bytes()
    assert not [call for call in host.docker.calls()[calls:] if "connect" in call]


def test_dry_run_changes_nothing(host: Host) -> None:
    """--dry-run shows the line and what would be attached, and names what leaves the list."""
    host.env.write_text("OLLAMA_URL=http://old:1\n")

    code, out, err = host.wire("--dry-run")

    assert 0 == code
    assert out.startswith("OLLAMA_BACKENDS='[")
    assert "default at http://old:1 is no container" in err
    assert "far would be attached" in err
    assert "OLLAMA_URL=http://old:1\n" == host.env.read_text()
    assert {"ps", "inspect", "compose"} == {call[0] for call in host.docker.calls()}
    assert not [call for call in host.docker.calls() if "up" in call]


def test_token_that_is_missing(host: Host) -> None:
    """Auth that is on without a token is refused with the container and the fix."""
    host.docker.containers[0] = inspected("neuro", IMAGE, "proxy", OLLAMA_AUTH="1", OLLAMA_AUTH_TOKEN="")

    assert "container neuro has OLLAMA_AUTH on and OLLAMA_AUTH_TOKEN empty: set" in host.refusal()


def test_no_way_to_a_container(host: Host) -> None:
    """Without a network to attach to, the fix is a command to run."""
    host.docker.containers[2] = inspected("gw-caddy-1", "caddy", "gw_llm_internal")

    assert "run `docker network connect proxy gw-caddy-1`" in host.refusal()


@pytest.mark.parametrize(
    ("containers", "words"),
    [([CADDY, OTHER], "No container of ollama/ollama runs"), ([OWN], "does not run"), ([], "does not run")],
)
def test_containers_that_are_missing(host: Host, containers: list[dict[str, object]], words: str) -> None:
    """Without a gateway or an Ollama there is nothing to wire."""
    host.docker.containers = list(containers)

    assert words in host.refusal()


@pytest.mark.parametrize(
    ("call", "reply", "words"),
    [
        (
            "ps --quiet",
            (1, "", "Cannot connect to the Docker daemon\n"),
            "Cannot connect to the Docker daemon",
        ),
        (f"inspect {NEURO['Id']}", (0, "[{", ""), "can't read"),
        (f"inspect {NEURO['Id']}", (0, json.dumps([{"Id": "x"}]), ""), "can't read"),
        ("compose ps", (14, "", "no configuration file provided: not found\n"), "no configuration file"),
    ],
)
def test_docker_that_fails(host: Host, call: str, reply: tuple[int, str, str], words: str) -> None:
    """What docker says is passed on, before anything is changed."""
    host.docker.replies[call] = reply

    assert words in host.refusal()


def test_network_that_cannot_be_attached(host: Host) -> None:
    """A container that can't be attached leaves the env file as it was."""
    host.docker.replies["network connect"] = (1, "", "Error response from daemon: network proxy not found\n")

    assert (1, "A=1 # kept\n") == (host.wire()[0], host.env.read_text())


def test_machine_without_docker(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without docker, or without an env file, the command says what to do."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert "no docker on the PATH" in host.refusal()
    monkeypatch.setenv("PATH", str(host.docker.folder))
    host.env.unlink()
    code, _, err = host.wire()
    assert (1, True) == (code, err.startswith("error: There is no "))
    assert not host.env.exists()


def test_damaged_list_is_left(host: Host) -> None:
    """An env file whose list can't be read is not overwritten."""
    host.env.write_text("OLLAMA_BACKENDS='[{\"name\"'\n")

    assert "is not a list" in host.refusal()


def test_two_internal_containers(host: Host) -> None:
    """The first on an internal network is the embedded one, further ones have names of their own."""
    host.docker.containers = [CADDY, OWN, inspected("embedded", IMAGE, "x_internal", "proxy")]
    _, out, _ = host.wire("--dry-run")

    assert '"name":"embedded","url":"http://gw-ollama-1:11434"' in out
    assert '"name":"embedded-2","url":"http://embedded:11434"' in out

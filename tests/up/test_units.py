"""The units of systemd fit each other, shut each service in, and start a gateway."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest
from attrs import define, field

from authz.__main__ import run
from authz.backends import env_file
from authz.configuration.variables import VARIABLES
from authz.forms import LONGEST_DRAIN_S
from authz.stack import units
from authz.stack.build import caddy_binary, caddy_config
from authz.stack.discovery import free_port
from tests.backend.app import backend
from tests.backend.serving import served
from tests.up.stacks import until

SERVICES: Final = ("prepare", "authz@", "metering", "caddy")
SECONDS: Final = {"s": 1, "m": 60, "min": 60}


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    """Every unit by its name."""
    binary = caddy_binary(os.environ, lambda _: None)
    return dict(units.render(caddy=binary, caddyfile=caddy_config(), user="gateway"))


@define
class Unit:
    """A service as its file says it."""

    name: str
    text: str

    def values(self, key: str) -> list[str]:
        """Return what the file gives a key, as often as it does."""
        return re.findall(rf"^{key}=(.*)$", self.text, re.MULTILINE)

    def value(self, key: str) -> str:
        """Return the one value of a key."""
        [found] = self.values(key)
        return found

    def environ(self) -> dict[str, str]:
        """Return the variables that the file itself sets."""
        words = [word for line in self.values("Environment") for word in shlex.split(line)]
        return dict(word.split("=", 1) for word in words)


@pytest.fixture(scope="module")
def services(rendered: dict[str, str]) -> dict[str, Unit]:
    """The services by the last part of their names."""
    return {name: Unit(name, rendered[f"neuronetz-gateway-{name}.service"]) for name in SERVICES}


def test_all_is_filled_in(rendered: dict[str, str]) -> None:
    """No mark of the templates is left, and every unit that one names is there."""
    for text in rendered.values():
        assert not re.search(r"@[A-Z]+@", text)
    named = set(re.findall(r"neuronetz-gateway[a-z@0-9-]*\.(?:service|target)", "".join(rendered.values())))
    assert rendered.keys() == {re.sub(r"@\d", "@", name) for name in named}


def test_every_service_is_shut_in(services: dict[str, Unit]) -> None:
    """Each runs as the user, gains nothing, writes into folders of its own; Caddy alone has a capability."""
    for name, unit in services.items():
        assert "gateway" == unit.value("User")
        for key, value in {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "PrivateTmp": "yes"}.items():
            assert value == unit.value(key)
        assert unit.values("AmbientCapabilities") == (["CAP_NET_BIND_SERVICE"] if name == "caddy" else [])
        assert unit.value("CapabilityBoundingSet") == ("CAP_NET_BIND_SERVICE" if name == "caddy" else "")
        assert "neuronetz-gateway" not in unit.value("StateDirectory").split()


def test_folders_are_of_those_who_write_them(services: dict[str, Unit]) -> None:
    """All but a service's own folders is read-only to it: authz and Caddy share that of the vocabularies."""
    written = {
        "authz@": {"GATEWAY_TABLES"},
        "metering": {"GATEWAY_JOURNAL"},
        "caddy": {"GATEWAY_JOURNAL", "GATEWAY_PROMPTS", "GATEWAY_TABLES", "XDG_DATA_HOME", "XDG_CONFIG_HOME"},
    }
    for name, variables in written.items():
        environ, folders = services[name].environ(), services[name].value("StateDirectory").split()
        for variable in variables:
            path = Path(environ[variable].removeprefix("%S/"))
            assert any(path.is_relative_to(folder) for folder in folders), (name, variable)


def test_caddy_is_given_no_secret(services: dict[str, Unit]) -> None:
    """Secrets are credentials of the Python services; what the env file holds of them Caddy does not see."""
    for name, unit in services.items():
        credentials = [each.partition(":")[0] for each in unit.values("LoadCredential")]
        assert credentials == ([] if name == "caddy" else ["pepper", "postgres_password"])
    secret = {variable.name for variable in VARIABLES if variable.is_secret}
    assert secret <= set(services["caddy"].value("UnsetEnvironment").split())


def test_streams_have_their_grace(services: dict[str, Unit]) -> None:
    """systemd waits longer for Caddy than Caddy for its streams."""
    caddy = services["caddy"]
    grace, stop = caddy.environ()["GATEWAY_GRACE"], caddy.value("TimeoutStopSec")
    seconds = [int(re.sub(r"\D", "", text)) * SECONDS[re.sub(r"\d", "", text)] for text in (grace, stop)]
    assert LONGEST_DRAIN_S + seconds[0] < seconds[1]


def test_what_can_stand_in_no_unit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A user, a path or a folder that can't serve is one sentence."""
    for arguments, code, sentence in (
        (["--user", "a b"], 2, "is no name of a user"),
        (["--caddy", "/opt/my caddy"], 1, "can't stand in a unit"),
        (["--caddy", "/opt/caddy", "--out", str(tmp_path / "nowhere")], 1, "can't be written to"),
    ):
        assert code == run(["systemd", *arguments])
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert 1 == len(error)
        assert sentence in error[0]


def test_an_installed_package_names_the_caddyfile_of_its_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outside a checkout there is no Caddyfile beside the package: without Caddy's wheel that is refused."""
    monkeypatch.setattr("authz.stack.build.SOURCE", tmp_path / "caddy")
    assert 1 == run(["systemd", "--caddy", "/opt/caddy"])
    shown = capsys.readouterr()
    assert ("", True) == (shown.out, "There is no Caddy here: run `pip install" in shown.err)


def test_units_are_written_or_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--out writes each unit for all to read, --user is who it runs as; without it they are printed."""
    assert 0 == run(["systemd", "--caddy", "/opt/caddy", "--user", "someone", "--out", str(tmp_path)])
    assert 5 == len(list(tmp_path.iterdir()))
    unit = tmp_path / "neuronetz-gateway-caddy.service"
    assert 0o644 == unit.stat().st_mode & 0o777
    assert "\nUser=someone\n" in unit.read_text()
    capsys.readouterr()
    assert 0 == run(["systemd", "--caddy", "/opt/caddy", "--user", "someone"])
    assert unit.read_text() in capsys.readouterr().out
    for out, written in (((), []), (("--out", str(tmp_path)), [str(path) for path in tmp_path.iterdir()])):
        assert 0 == run(["systemd", "--caddy", "/opt/caddy", "--user", "someone", "--json", *out])
        printed = json.loads(capsys.readouterr().out)
        assert sorted(written) == sorted(printed["written"])
        assert unit.read_text() == printed["units"][unit.name]


@define
class Machine:
    """Does with a unit what systemd does, as far as paths and variables go."""

    root: Path
    env: Path
    notified: socket.socket
    _stack: ExitStack = field(factory=ExitStack)

    def specified(self, text: str, instance: str = "") -> str:
        """Return a text with its specifiers filled in, below this root."""
        places = {"%t": "run", "%S": "state", "%d": "credentials"}
        for mark, place in places.items():
            text = text.replace(mark, str(self.root / place))
        return text.replace("%i", instance)

    def environ(self, unit: Unit) -> dict[str, str]:
        """Return what a service of the unit finds in its environment."""
        lines = self.env.read_text()
        ours = {name: self.specified(value) for name, value in unit.environ().items()}
        read = {v.name: value for v in VARIABLES if (value := env_file.value_of(lines, v.name))}
        unset = set(" ".join(unit.values("UnsetEnvironment")).split())
        both = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": self.notified.getsockname(), **ours, **read}
        return {name: value for name, value in both.items() if name not in unset}

    def prepare(self, unit: Unit) -> None:
        """Make a unit's folders."""
        for name in unit.value("StateDirectory").split():
            (self.root / "state" / name).mkdir(parents=True, exist_ok=True)
        (self.root / "run" / unit.value("RuntimeDirectory")).mkdir(parents=True, exist_ok=True)

    def run(self, unit: Unit, command: str) -> subprocess.CompletedProcess[str]:
        """Run one command of a unit to its end."""
        argv = shlex.split(self.specified(command))
        done = subprocess.run(argv, env=self.environ(unit), capture_output=True, text=True, check=False)
        assert 0 == done.returncode, done.stderr
        return done

    def start(self, unit: Unit, instance: str = "") -> subprocess.Popen[bytes]:
        """Start a service, after what must come before it."""
        self.prepare(unit)
        for command in unit.values("ExecStartPre"):
            self.run(unit, command)
        argv = shlex.split(self.specified(unit.value("ExecStart"), instance))
        log = self._stack.enter_context((self.root / f"{unit.name}{instance}.log").open("wb"))
        process = subprocess.Popen(argv, env=self.environ(unit), stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        return process

    def stop(self) -> None:
        """End every service, the last one first."""
        self._stack.close()


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory, database: str, redis_url: str) -> Iterator[Machine]:
    """A folder for everything that units name, with the env file and secrets that `init` has written."""
    root = tmp_path_factory.mktemp("u")
    assert 0 == run(["init", "--write-env", str(root / ".env")])
    (root / "credentials").mkdir()
    for name in ("pepper", "postgres_password"):
        shutil.copy(root / "secrets" / name, root / "credentials" / name)
        (root / "credentials" / name).chmod(0o400)
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(root / "notify"))
    notified.settimeout(30)
    machine = Machine(root, root / ".env", notified)
    stores = {"DATABASE_URL": database, "REDIS_URL": redis_url}
    for name, value in stores.items():
        text = env_file.read(machine.env)
        env_file.write(machine.env, env_file.rewritten(text, name, value), expected=text)
    yield machine
    machine.stop()
    notified.close()


def test_the_units_start_a_gateway(machine: Machine, services: dict[str, Unit]) -> None:
    """Commands, paths and variables of all units fit each other: a key is served, and a reload keeps that."""
    port = free_port()
    with served(backend("demo")) as backend_url:
        text = env_file.read(machine.env)
        settings = {"GATEWAY_SITE": f"http://:{port}", "OLLAMA_URL": backend_url}
        machine.env.write_text(text + "".join(f"{env_file.line(*each)}\n" for each in settings.items()))
        prepare = services["prepare"]
        machine.prepare(prepare)
        for command in prepare.values("ExecStart"):
            machine.run(prepare, command)
        for index in ("0", "1"):
            machine.start(services["authz@"], index)
        run_folder = machine.root / "run" / "neuronetz-gateway"
        until(lambda: all((run_folder / f"authz-{index}.sock").exists() for index in "01"))
        machine.start(services["metering"])
        caddy = machine.start(services["caddy"])
        until(lambda: b"READY=1" in machine.notified.recv(4096))
        url = f"http://127.0.0.1:{port}"
        until(lambda: httpx.get(f"{url}/readyz").is_success)

        key = _new_key(machine, prepare)
        _assert_served(url, key)
        reload = services["caddy"].values("ExecReload")
        machine.run(services["caddy"], reload[0])
        assert "/bin/kill -USR1 $MAINPID" == reload[1]
        caddy.send_signal(signal.SIGUSR1)
        until(lambda: b"READY=1" in machine.notified.recv(4096))
        _assert_served(url, key)
        machine.stop()
    assert 0 == caddy.returncode


def _new_key(machine: Machine, unit: Unit) -> str:
    command = f"{sys.executable} -m authz"
    machine.run(unit, f"{command} create-tenant --name acme")
    return machine.run(unit, f"{command} create-key --tenant acme --name first").stdout.split()[0]


def _assert_served(url: str, key: str) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "tokens=3"}], "stream": False}
    answer = httpx.post(f"{url}/api/chat", headers={"Authorization": f"Bearer {key}"}, json=body, timeout=10)
    assert 200 == answer.status_code, answer.text

"""From the wheels alone, `up` starts within seconds: no Go, no checkout, no build of before."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from platform import machine
from zipfile import ZipFile

import httpx
import pytest

from authz.errors import CommandError
from authz.stack.build import SOURCE
from authz.stack.wheels import write_wheels
from tests.up.stacks import Stack

pytestmark = pytest.mark.timeout(300)

HERE = f"linux-{machine()}"
LOCK = SOURCE.parent / "requirements.lock"


def _write(folder: Path, *, umask: int) -> dict[str, bytes]:
    """Write the wheels of this machine as `just wheel` does."""
    argv = [sys.executable, "-m", "authz.stack.wheels", str(folder), HERE]
    subprocess.run(argv, check=True, umask=umask, capture_output=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of this machine."""
    folder = tmp_path_factory.mktemp("wheels")
    _write(folder, umask=0o022)
    return folder


@pytest.fixture
def installed(wheels: Path) -> Iterator[Stack]:
    """A stack in a bare environment: outside the checkout, the cache empty, no Go on the PATH."""
    with tempfile.TemporaryDirectory(prefix="nz ") as name:
        folder = Path(name)
        venv, cache, empty = (folder / part for part in ("venv", "cache", "empty"))
        empty.mkdir()
        subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, venv], check=True)
        where = ("--quiet", "--python", venv, "--find-links", wheels, "--constraint", LOCK)
        subprocess.run(["uv", "pip", "install", *where, "neuronetz-gateway[embedded]"], check=True)
        surroundings = (f"--chdir={empty}", f"PATH={venv / 'bin'}:/usr/bin:/bin", f"XDG_CACHE_HOME={cache}")
        stack = Stack(
            folder / "s",
            within=("env", "-u", "PYTHONPATH", *surroundings),
            python=(str(venv / "bin/python"),),
        )
        yield stack
        stack.run("down")
        assert [] == stack.processes()
        assert not cache.exists()


def test_same_bytes_each_time(wheels: Path, tmp_path: Path) -> None:
    """Each build of a commit has the same bytes, in another folder and under another umask."""
    first = {path.name: path.read_bytes() for path in wheels.iterdir()}
    assert 2 == len(first)
    assert first == _write(tmp_path / "again", umask=0o077)


def test_installed_wheels_stream_an_answer(installed: Stack) -> None:
    """`up` brings up the whole gateway, and its demo backend streams through it."""
    site = Path(installed.python[0]).parents[1]
    assert [] == [path for path in site.rglob("go") if path.parent.name in {"bin", "site-packages"}]
    facts = installed.up()
    asked = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {facts['secret']}"}
    url = f"{facts['url']}/v1/chat/completions"
    with httpx.stream("POST", url, json=asked, headers=headers, timeout=30) as answer:
        frames = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert 200 == answer.status_code
    assert "data: [DONE]" == frames[-1]
    assert len(frames) > 5
    running = (Path("/proc") / str(installed.pid("caddy")) / "exe").resolve()
    assert ("neuronetz_gateway_caddy", "caddy") == running.parts[-2:]


def test_wheels_carry_what_up_reads(wheels: Path) -> None:
    """Caddy's wheel holds what it is configured by, and the licences of all that is linked into it."""
    (path,) = wheels.glob("neuronetz_gateway_caddy-*")
    with ZipFile(path) as archive:
        names = {name.rpartition("/")[2]: name for name in archive.namelist()}
        files = {
            "Caddyfile",
            "alerts.yaml",
            "caddy",
            "caddy.digest",
            "grafana.json",
            "LICENSE",
            "LICENSES.txt",
            "RECORD",
        }
        assert files <= names.keys()
        licences = archive.read(names["LICENSES.txt"]).decode()
        mode = archive.getinfo(names["caddy"]).external_attr >> 16
    assert 0o100755 == mode
    assert {"Go", "github.com/caddyserver/caddy/v2"} <= {
        line.split()[1].rstrip(":") for line in licences.splitlines() if line.startswith("=== ")
    }


def test_unknown_platform(tmp_path: Path) -> None:
    """A platform that nothing is built for is named, with those that there are."""
    with pytest.raises(CommandError, match=r"no platform plan9: name one of linux-x86_64, "):
        write_wheels(tmp_path, ("plan9",), {})

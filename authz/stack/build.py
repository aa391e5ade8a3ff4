"""Caddy with our modules is built from `caddy/` by the Go toolchain of a wheel, once per content.

Where a wheel carries the Caddy of these very sources, that one is used.
`python -m authz.stack.build go|gofmt|caddy ARGUMENT...` runs one of them in `caddy/`.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from authz.errors import CommandError
from authz.stack import carried
from authz.stack.embedded import wheel_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SOURCE: Final = Path(__file__).parents[2] / "caddy"
_GOFLAGS: Final = "-mod=readonly -modcacherw -buildvcs=false -trimpath -tags=nobadger,nomysql,nopgx"
_LDFLAGS: Final = "-s -w"
_KEPT_BUILDS: Final = 3


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return where builds, modules and compiled packages outlive a state folder (XDG base directory)."""
    try:
        base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise CommandError("This user has no home: set XDG_CACHE_HOME to a folder for caches.") from error
    return Path(base) / "neuronetz-gateway"


def go_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which the wheel's toolchain neither fetches nor finds another one."""
    cache = cache_folder(environ)
    return {
        **environ,
        "CGO_ENABLED": "0",
        "GOCACHE": str(cache / "go-build"),
        "GOFLAGS": _GOFLAGS,
        "GOMODCACHE": str(cache / "go-mod"),
        "GOROOT": str(_go_root()),
        "GOTOOLCHAIN": "local",
    }


def caddy_binary(environ: Mapping[str, str], note: Callable[[str], None]) -> Path:
    """Return the Caddy of exactly these sources: of its wheel, of the cache, or built, with notes on the way.

    Outside a checkout it is the one with which this package was built. Raises CommandError.
    """
    if not is_checkout():
        return carried.fitting().binary
    found = carried.find()
    if found is not None and found.digest == source_digest():
        return found.binary
    binary = _built(environ, note)
    if found is not None:
        note(f"{carried.WHEEL} {found.version} holds another Caddy than these sources, and is not used")
    return binary


def caddy_config() -> Path:
    """Return the Caddyfile of the checkout, else that of the wheel."""
    return SOURCE / "Caddyfile" if is_checkout() else carried.fitting().config


def is_checkout() -> bool:
    """Return whether Caddy's sources are here, which no package carries."""
    return (SOURCE / "go.mod").exists()


def source_digest() -> str:
    """Digest what decides how Caddy behaves on any machine, the toolchain apart: sources and flags."""
    digest = sha256(f"{_GOFLAGS} {_LDFLAGS}".encode())
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix in {".go", ".mod", ".sum"} and not path.name.endswith("_test.go"):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(SOURCE)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()[:20]


def build_caddy(binary: Path, environ: Mapping[str, str], note: Callable[[str], None]) -> None:
    """Build Caddy into this file, for the machine that GOOS and GOARCH name. Raises CommandError."""
    attempt = binary.with_suffix(f".{os.getpid()}")
    go = str(_go_root() / "bin" / "go")
    argv = [go, "build", "-v", "-ldflags", _LDFLAGS, "-o", str(attempt), "./cmd/caddy"]
    printed: list[str] = []
    fetched = compiled = 0
    with subprocess.Popen(
        argv,
        cwd=SOURCE,
        env=go_environ(environ),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # With -v, go names every package that it compiles and every module that it fetches.
        try:
            for line in process.stderr or ():
                printed.append(line.strip())
                fetched += line.startswith("go: downloading ")
                compiled += not line.startswith("go: ")
                note(f"{fetched} modules fetched, {compiled} packages compiled")
        except KeyboardInterrupt:
            process.terminate()
            raise
    if process.returncode != 0:
        attempt.unlink(missing_ok=True)
        message = f"Caddy could not be built, correct the sources: {' | '.join(printed[-8:])}"
        raise CommandError(message)
    attempt.rename(binary)


def _built(environ: Mapping[str, str], note: Callable[[str], None]) -> Path:
    cache = cache_folder(environ)
    binary = cache / f"caddy-{_digest()}"
    if binary.exists():
        with suppress(OSError):  # the cache may be read-only
            os.utime(binary)
        return binary
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / "build.lock").open("w")
    except OSError as error:
        message = f"The cache {cache} can't be used ({error.strerror}): set XDG_CACHE_HOME to another folder."
        raise CommandError(message) from error
    with lock:
        # Another `up` may be at it; its result is ours.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            build_caddy(binary, environ, note)
            _forget_old_builds(cache)
    return binary


def _go_root() -> Path:
    return wheel_folder("go")


def _digest() -> str:
    """Digest what decides about the very binary: the sources' digest and the toolchain."""
    return sha256(source_digest().encode() + (_go_root() / "VERSION").read_bytes()).hexdigest()[:20]


def _forget_old_builds(cache: Path) -> None:
    builds = sorted(cache.glob("caddy-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for build in builds[_KEPT_BUILDS:]:
        build.unlink(missing_ok=True)


def main(tool: str, *arguments: str) -> NoReturn:
    """Become `go`, `gofmt` or our `caddy`, in the folder of the sources."""
    os.chdir(SOURCE)
    environ = go_environ(os.environ)
    is_ours = tool == "caddy"
    program = caddy_binary(os.environ, _say) if is_ours else _go_root() / "bin" / tool
    os.execve(program, [str(program), *arguments], environ)


def _say(progress: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{progress}")


if __name__ == "__main__":
    main(*sys.argv[1:])

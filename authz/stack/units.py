"""Units of systemd for a gateway without containers, filled in from the files of `systemd/`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from authz.errors import CommandError, UsageError
from authz.stack import plan
from authz.stack.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

ETC: Final = Path("/etc/neuronetz-gateway")
USER: Final = "neuronetz-gateway"
_FOLDER: Final = Path(__file__).with_name("systemd")
_SUFFIXES: Final = frozenset({".service", ".target"})
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,30}", re.ASCII)
_MODE: Final = 0o644
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./+@~=:-]+", re.ASCII)
"""Signs that mean themselves in a unit, where % begins a specifier and blanks end a word."""
_HOMES: Final = (Path("/home"), Path("/root"), Path("/run/user"))


def render(*, caddy: Path, caddyfile: Path, user: str) -> Mapping[str, str]:
    """Return the units by their names. Raises CommandError for what can't stand in one."""
    if not _USER.fullmatch(user):
        raise UsageError(f"--user {user!r} is no name of a user: write it like {USER}.")
    words = {"PYTHON": sys.executable, "CADDY": str(caddy), "CADDYFILE": str(caddyfile)}
    arguments = plan.UVICORN
    for word in (*words.values(), *arguments):
        if not _PLAIN.fullmatch(word):
            raise CommandError(
                f"The path {word} can't stand in a unit: install where it has plain letters only."
            )
    values = {**words, "UVICORN": " ".join(arguments), "USER": user, "ETC": str(ETC)}
    parts = {"COMMON": "python.conf", "PATHS": "paths.conf", "HARDENING": "hardening.conf"}
    units = {path.name: path.read_text() for path in sorted(_FOLDER.iterdir()) if path.suffix in _SUFFIXES}
    for mark, name in parts.items():
        units = _filled(units, {mark: (_FOLDER / name).read_text().rstrip("\n")})
    return _filled(units, values)


def write(units: Mapping[str, str], folder: Path) -> None:
    """Write each unit into a folder, whole or not at all. Raises CommandError."""
    try:
        for name, text in units.items():
            write_atomically(folder / name, text.encode(), mode=_MODE)
    except OSError as error:
        raise CommandError(
            f"The units can't be written to {folder} ({error.strerror}): make it a folder that you can write."
        ) from error


def hidden(*programs: Path) -> list[Path]:
    """Return the programs that a service can't see, as they lie in somebody's home."""
    resolved = (program.resolve() for program in programs)
    return [path for path in resolved if any(path.is_relative_to(home) for home in _HOMES)]


def _filled(units: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    filled = dict(units)
    for mark, value in values.items():
        filled = {name: text.replace(f"@{mark}@", value) for name, text in filled.items()}
    return filled

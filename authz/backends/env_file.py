"""One line of an env file, replaced: the file is the old one or the new one, never a half.

Lines are kept as they are, comments and ends of line too. The value stands in single quotes, between
which neither Compose, `just` nor a shell gives anything a meaning.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW_MODE: Final = 0o600
"""Of a file that is made: it may hold tokens."""
_ASSIGNMENT: Final = (
    r"(?m)^(?P<before>[ \t]*(?:export[ \t]+)?){}[ \t]*=[ \t]*"
    r"(?P<value>'[^']*'|\"(?:[^\"\\]|\\.)*\"|(?:(?![ \t]+#)[^\r\n])*)"
    r"(?P<after>[^\r\n]*)(?P<ending>\r?\n|\Z)"
)
"""A quoted value may take several lines; after any a comment may stand."""
_DOUBLE_ESCAPE: Final = re.compile(r'\\(["\\$`])')


def line(variable: str, value: str) -> str:
    """Write an assignment that is read alike by Compose, `just` and a shell; the value has no apostrophe."""
    return f"{variable}='{value}'"


def rewritten(text: str, variable: str, value: str) -> str:
    """Return the file's text with the variable set: in its place, else at the end; once, in any case."""
    places = _places(text, variable)
    ending = "\r\n" if "\r\n" in text else "\n"
    if not places:
        gap = ending if text and not text.endswith("\n") else ""
        return f"{text}{gap}{line(variable, value)}{ending}"
    # Readers take the last of several assignments, so its place is the one that counts.
    last = places[-1]
    kept = f"{last['before']}{line(variable, value)}{last['after']}{last['ending'] or ending}"
    text = text[: last.start()] + kept + text[last.end() :]
    for earlier in reversed(places[:-1]):
        text = text[: earlier.start()] + text[earlier.end() :]
    return text


def value_of(text: str, variable: str) -> str | None:
    """Return what the file sets a variable to; None where it does not."""
    places = _places(text, variable)
    return _unquoted(places[-1]["value"]) if places else None


def _places(text: str, variable: str) -> list[re.Match[str]]:
    return list(re.finditer(_ASSIGNMENT.format(re.escape(variable)), text))


def read(path: Path) -> str:
    """Read an env file; one that does not exist is empty. Raises CommandError with what is wrong."""
    try:
        if path.is_symlink():
            raise CommandError(f"{path} is a symbolic link: name the file that it leads to.")
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        _refuse_missing_folder(path)
        return ""
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} is not UTF-8: correct or rename it, nothing was written.") from error
    except OSError as error:
        raise _unusable(path, error) from error


def refuse_unwritable(path: Path) -> None:
    """Refuse a file that could not be replaced, before anything is done."""
    read(path)
    is_writable = os.access(path, os.W_OK) if path.exists() else True
    if not is_writable or (path.exists() and not path.stat().st_mode & 0o222):
        raise CommandError(f"{path} is read-only: make it writable, nothing was written.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise CommandError(f"The folder of {path} can't be written: make it writable, nothing was written.")


def write(path: Path, text: str, *, expected: str) -> None:
    """Replace the file, with its mode and owner, unless it no longer holds what was `expected`.

    The new content is on the disk before it takes the name, and the name before this returns.
    """
    refuse_unwritable(path)
    attempt = path.with_name(f".{path.name}.new")
    try:
        with locked(path.parent) as folder:
            if read(path) != expected:
                raise CommandError(f"{path} was changed meanwhile: run it again, nothing was written.")
            try:
                _fill(attempt, text, path.stat() if path.exists() else None)
                attempt.replace(path)
            finally:
                attempt.unlink(missing_ok=True)
            with suppress(OSError):  # some file systems can't
                os.fsync(folder)
    except OSError as error:
        raise _unusable(path, error) from error


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Let one command at a time write in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _fill(attempt: Path, text: str, old: os.stat_result | None) -> None:
    attempt.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(attempt, flags, NEW_MODE), "w", encoding="utf-8", newline="") as file:
        if old is not None:
            _keep_owner(file.fileno(), old)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _keep_owner(descriptor: int, old: os.stat_result) -> None:
    if (os.geteuid(), os.getegid()) != (old.st_uid, old.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _refuse_missing_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise CommandError(f"There is no folder {path.parent}: make it, or name another file.")


def _unquoted(value: str) -> str:
    if value[:1] == "'":
        return value.strip("'")
    if value[:1] == '"' and value.endswith('"'):
        return _DOUBLE_ESCAPE.sub(r"\1", value[1:-1])
    return value.strip()


def _unusable(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{path} can't be used ({error.strerror}): name a file, nothing was written.")

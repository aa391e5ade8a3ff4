"""Caddy's snippets follow from the list of backends: staged, validated, swapped in, applied.

What Caddy refuses, or does not confirm, leaves the folder as it was. Every file is replaced whole; a
process that dies between two of them leaves a mixture, which /readyz names and `render` mends.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.backends import backend as backend_
from authz.backends import snippets
from authz.backends.rendered import LIST
from authz.backends.snippets import CREDENTIAL_SUFFIX, SUFFIX
from authz.errors import CommandError
from authz.stack.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from authz.backends.backend import Backend

_OURS: Final = (SUFFIX, CREDENTIAL_SUFFIX)


@frozen
class Change:
    """What is to become of a folder of snippets: the content of each file, by its name."""

    folder: Path
    before: dict[str, bytes]
    after: dict[str, bytes]

    @property
    def needs_reload(self) -> bool:
        """Return whether Caddy must read its configuration again; a token it reads with each request."""
        return _snippets(self.before) != _snippets(self.after)

    @property
    def removes(self) -> bool:
        """Return whether a backend is no longer there."""
        return not _snippets(self.before).keys() <= _snippets(self.after).keys()

    def write_list(self) -> None:
        """Let authz follow the new list."""
        write_atomically(self.folder / LIST, self.after[LIST])

    def write_snippets(self) -> None:
        """Put the snippets and tokens in place; what they name is there before them."""
        _write(self.folder, self.before, self.after)
        _remove(self.folder, _snippets(self.before).keys() - self.after.keys())

    def tidy(self) -> None:
        """Remove the tokens that Caddy no longer reads, once it has the new configuration."""
        _remove(self.folder, self.before.keys() - self.after.keys() - {LIST})

    def undo(self) -> None:
        """Put everything back."""
        _write(self.folder, self.after, self.before)
        _remove(self.folder, self.after.keys() - self.before.keys() - {LIST})
        if LIST in self.before:
            write_atomically(self.folder / LIST, self.before[LIST])
        else:
            (self.folder / LIST).unlink(missing_ok=True)


def plan_change(folder: Path, backends: Sequence[Backend], *, is_forced: bool = False) -> Change:
    """Render a list and compare it with what is there.

    A snippet that was edited is kept as long as its backend stays the same. Raises CommandError where
    the edit would be lost, unless `is_forced`.
    """
    before = _read(folder)
    after: dict[str, bytes] = {LIST: backend_.serialise(backends).encode()}
    for backend in backends:
        credential = folder / snippets.credential_name(backend)
        rendered = snippets.render(backend, credential)
        name = f"{backend.name}{SUFFIX}"
        old = "" if is_forced else before.get(name, b"").decode(errors="replace")
        text = snippets.merged(old, rendered)
        if text is None:
            raise _edited(folder / name)
        after[name] = text.encode()
        for value in backend.credentials().values():
            after[credential.name] = value.encode()
    for name in sorted(_snippets(before).keys() - after.keys()):
        if snippets.is_edited(before[name].decode(errors="replace")) and not is_forced:
            raise _edited(folder / name)
    return Change(folder, before, after)


@contextmanager
def staged(change: Change) -> Iterator[Path]:
    """Lay the new snippets into a folder of their own, for Caddy to validate."""
    with tempfile.TemporaryDirectory(prefix="staged-", dir=change.folder.parent) as folder:
        for name, content in _snippets(change.after).items():
            (Path(folder) / name).write_bytes(content)
        yield Path(folder)


def _edited(path: Path) -> CommandError:
    return CommandError(
        f"{path} was edited by hand and its backend changes: carry the edit over and run "
        "`neuronetz-gateway render --force`, which overwrites it. Nothing was written."
    )


def _read(folder: Path) -> dict[str, bytes]:
    try:
        found = [path for path in folder.iterdir() if path.suffix in _OURS or path.name == LIST]
        return {path.name: path.read_bytes() for path in found if not path.name.startswith(".")}
    except OSError as error:
        raise CommandError(
            f"Caddy's snippets in {folder} can't be read ({error.strerror}): "
            "make the folder, or name it in GATEWAY_BACKENDS."
        ) from error


def _snippets(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name.endswith(SUFFIX)}


def _write(folder: Path, old: dict[str, bytes], new: dict[str, bytes]) -> None:
    """Write tokens, then the snippets that name them; `old` is what need not be written again."""
    try:
        for suffix in (CREDENTIAL_SUFFIX, SUFFIX):
            for name, content in new.items():
                if name.endswith(suffix) and old.get(name) != content:
                    write_atomically(folder / name, content)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _remove(folder: Path, names: Iterable[str]) -> None:
    try:
        for name in names:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> CommandError:
    return CommandError(
        f"Caddy's snippets in {folder} can't be written ({error.strerror}): give this user the folder."
    )

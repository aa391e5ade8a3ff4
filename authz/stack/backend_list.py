"""The list of backends where it stands: in an env file or the environment; read, written, put to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz import settings
from authz.backends import backend as backend_
from authz.backends import env_file
from authz.backends.backend import VARIABLE
from authz.backends.rendered import Rendered
from authz.errors import CommandError, SettingsError
from authz.stack import apply, snippets
from authz.stack.discovery import DEMO_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from authz.backends.backend import Backend

URL: Final = "OLLAMA_URL"


@frozen
class EnvFile:
    """An env file as it was read; nothing else may change it until it is written."""

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> EnvFile:
        """Read a file that is to be written later. Raises CommandError if that could not be done."""
        env_file.refuse_unwritable(path)
        return cls(path, env_file.read(path))

    def values(self) -> dict[str, str]:
        """Return the two variables of backends, as far as the file sets them."""
        found = {name: env_file.value_of(self.text, name) for name in (VARIABLE, URL)}
        return {name: value for name, value in found.items() if value}

    def holding(self, backends: Sequence[Backend]) -> EnvFile:
        """Return the file as it will be with this list: here tokens leave the program."""
        return EnvFile(self.path, env_file.rewritten(self.text, VARIABLE, backend_.serialise(backends)))


def parse(source: Mapping[str, str]) -> tuple[Backend, ...]:
    """Parse the list of an environment or env file. Raises SettingsError."""
    return backend_.parse(source.get(VARIABLE), source.get(URL))


def line(backends: Sequence[Backend], *, is_redacted: bool) -> str:
    """Return the line of an env file, with `***` for tokens or ready to paste."""
    write = backend_.redacted if is_redacted else backend_.serialise
    return env_file.line(VARIABLE, write(backends))


def current(environ: Mapping[str, str], state: Path, file: EnvFile | None = None) -> tuple[Backend, ...]:
    """Return the list of now: the env file's, else the environment's, else what Caddy's snippets are made of.

    In each, OLLAMA_BACKENDS counts before OLLAMA_URL. Raises SettingsError with what can't be read.
    """
    for source in (file.values() if file else {}, environ):
        if found := parse(source):
            return found
        if source.get(VARIABLE):
            return ()
    known = Rendered(settings.load(environ, state=state, needs_stores=False).snippets).load()
    return tuple(backend for backend in known if backend.name != DEMO_NAME)


async def use(backends: Sequence[Backend], state: Path, file: EnvFile) -> bool:
    """Write the list into the env file and give it to the stack in a folder; whether one runs there.

    What Caddy refuses leaves both as they were.
    """
    running = apply.running(state)
    new = file.holding(backends)
    if running is None:
        env_file.write(file.path, new.text, expected=file.text)
        return False
    change = snippets.plan_change(running.folder.backends, backends)
    await running.validate(change)
    env_file.write(file.path, new.text, expected=file.text)
    try:
        await running.apply(change)
    except CommandError as error:
        env_file.write(file.path, file.text, expected=new.text)
        raise CommandError(f"{error} {file.path} is as it was, too.") from error
    return True


async def render(environ: Mapping[str, str], state: Path, *, is_forced: bool) -> tuple[Path, bool]:
    """Make the snippets of the environment's list; return their folder, and whether a stack took them."""
    backends = parse(environ)
    if not backends:
        raise SettingsError(f"There is nothing to render: set {VARIABLE}, or {URL} for one backend.")
    running = apply.running(state)
    if running is not None:
        change = snippets.plan_change(running.folder.backends, backends, is_forced=is_forced)
        await running.validate(change)
        await running.apply(change)
        return change.folder, True
    folder = settings.load(environ, state=state, needs_stores=False).snippets
    change = snippets.plan_change(folder, backends, is_forced=is_forced)
    change.write_snippets()
    change.tidy()
    change.write_list()
    return folder, False

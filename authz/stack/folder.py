"""All of a stack lies in its state folder, which one supervisor holds at a time."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import contextmanager, suppress
from shlex import quote
from typing import TYPE_CHECKING, Final

import msgspec
from attrs import frozen

from authz.errors import CommandError
from authz.stack import machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION: Final = "1"
"""The layout of the folder; another one is never touched."""
_SOCKET_PATH_BYTES: Final = 107
"""The longest path that `bind` takes, less its closing zero (sun_path, linux/un.h)."""
_LONGEST_SOCKET: Final = ".s.PGSQL.5432"
_NOT_IN_A_PATH: Final = re.compile(r'[][{}*?|"\\\x00-\x1f\x7f]')
"""Characters with a meaning of their own in the Caddyfile, where the folder's path stands in quotes."""


@frozen
class Stores:
    """The addresses of the stack's stores for every other command (`stores.json`)."""

    database_url: str
    redis_url: str


@frozen
class StateFolder:
    """The paths of a state folder, each named once."""

    path: Path

    @property
    def version(self) -> Path:
        """The layout's version; also the mark that a folder is one of ours."""
        return self.path / "version"

    @property
    def lock(self) -> Path:
        """Locked as long as a supervisor lives, whatever became of its children."""
        return self.path / "lock"

    @property
    def facts(self) -> Path:
        """Return the file that lists what runs, for `status` and `down`."""
        return self.path / "state.json"

    @property
    def stores(self) -> Path:
        """The stores' addresses, for every other command."""
        return self.path / "stores.json"

    @property
    def pepper(self) -> Path:
        """The secret that keys' tags are made with."""
        return self.path / "pepper"

    @property
    def run(self) -> Path:
        """All sockets."""
        return self.path / "run"

    @property
    def control(self) -> Path:
        """Return where the running streams are listed and killed."""
        return self.run / "control.sock"

    @property
    def metrics(self) -> Path:
        """Return the socket on which metering reports how far the bill is."""
        return self.run / "metering.sock"

    @property
    def logs(self) -> Path:
        """Return the folder of what the children print, one file each."""
        return self.path / "logs"

    @property
    def journal(self) -> Path:
        """Return the journal: the truth about what ran, which the bill is made of."""
        return self.path / "journal" / "journal.log"

    @property
    def backends(self) -> Path:
        """One Caddy snippet per backend."""
        return self.path / "backends.d"

    @property
    def tables(self) -> Path:
        """Return where authz describes the models to Caddy."""
        return self.path / "tables"

    def authz_sockets(self) -> list[Path]:
        """Return the sockets of all authz processes, of one that has ended too."""
        return sorted(self.run.glob("authz-*.sock"))

    def authz_socket(self, index: int) -> Path:
        """Return where the authz process of this number listens."""
        return self.run / f"authz-{index}.sock"


def existing_folder(path: Path, *, instead: str = "") -> StateFolder:
    """Return a folder that `up` has made before; refuse one of another version.

    `instead` is what to do where something else than `up` runs the gateway.
    """
    folder = StateFolder(path.absolute())
    try:
        found = folder.version.read_text().strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"There is no stack in {path}: run `neuronetz-gateway up --state {quote(str(path))}` first"
        message = f"{message}; {instead}." if instead else f"{message}."
        raise CommandError(message) from error
    except OSError as error:
        raise _unusable(path, error) from error
    if found != VERSION:
        message = (
            f"The state folder {path} has version {found}, this program needs {VERSION}: "
            "use the program that made it, or another folder with --state."
        )
        raise CommandError(message)
    return folder


def make_folder(path: Path) -> StateFolder:
    """Make the folder with everything in it that other processes expect to find (0700)."""
    folder = StateFolder(path.absolute())
    _refuse_unfit(folder.path)
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder.path):
            _fill(folder)
    except OSError as error:
        raise _unusable(path, error) from error
    return folder


def _unusable(path: Path, error: OSError) -> CommandError:
    return CommandError(
        f"The state folder {path} can't be used ({error.strerror}): choose another with --state."
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time fill a folder: two stacks with two peppers would refuse each other's keys."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fill(folder: StateFolder) -> None:
    if folder.version.exists():
        existing_folder(folder.path)
    elif any(folder.path.iterdir()):
        raise CommandError(f"{folder.path} is not empty and no state folder: choose another with --state.")
    make_run_folder(folder.path)
    write_atomically(folder.version, f"{VERSION}\n".encode())
    for part in (folder.journal.parent, folder.backends):
        part.mkdir(exist_ok=True)
    if not folder.pepper.exists():
        write_atomically(folder.pepper, secrets.token_hex(32).encode(), mode=0o400)


def _refuse_unfit(state: Path) -> None:
    if found := _NOT_IN_A_PATH.search(str(state)):
        raise CommandError(
            f"The path of the state folder {state} holds {found[0]!r}, which Caddy can't read: "
            "choose another with --state."
        )
    if len(os.fsencode(state / "run" / _LONGEST_SOCKET)) > _SOCKET_PATH_BYTES:
        raise CommandError(
            f"The path of the state folder {state} is too long for sockets: choose a shorter one."
        )


def make_run_folder(state: Path) -> Path:
    """Make the state folder (0700) where there is none yet, and in it the folder of its sockets."""
    run = state / "run"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    run.mkdir(exist_ok=True)
    user = machine.unprivileged_user()
    if user is not None:
        # PostgreSQL refuses root and runs as this user, who must be able to make its socket here.
        with suppress(PermissionError):  # where this fails, PostgreSQL says so, if it is needed
            os.chown(run, 0, user)
    run.chmod(0o770)
    (state / "logs").mkdir(exist_ok=True)
    return run


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Readers see the old content or the new one, never a part; root writes for the owner of the folder."""
    attempt = path.with_name(f"{path.name}.new")
    attempt.unlink(missing_ok=True)
    with os.fdopen(os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(file.fileno(), folder.st_uid, folder.st_gid)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    attempt.rename(path)


def save_stores(folder: StateFolder, stores: Stores) -> None:
    """Write down where this stack's stores are, for the other commands."""
    write_atomically(folder.stores, msgspec.json.encode(stores))


@contextmanager
def hold(folder: StateFolder) -> Iterator[None]:
    """Be the only supervisor of this folder."""
    with folder.lock.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = (
                f"A stack already runs in {folder.path}: "
                f"`neuronetz-gateway down --state {quote(str(folder.path))}` stops it."
            )
            raise CommandError(message) from None
        yield

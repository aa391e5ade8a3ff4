"""All of a stack lies in its state folder, which one supervisor holds at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager
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


@frozen
class Stores:
    """Where every other command finds the stack's stores (`stores.json`)."""

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
        """What runs, for `status` and `down`."""
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
        """Where the running streams are listed and killed."""
        return self.run / "control.sock"

    @property
    def metrics(self) -> Path:
        """Where metering tells how far the bill is."""
        return self.run / "metering.sock"

    @property
    def logs(self) -> Path:
        """What the children print, one file each."""
        return self.path / "logs"

    @property
    def journal(self) -> Path:
        """What ran: the truth that the bill is made of."""
        return self.path / "journal" / "journal.log"

    @property
    def backends(self) -> Path:
        """One Caddy snippet per backend."""
        return self.path / "backends.d"

    def authz_socket(self, index: int) -> Path:
        """Where the authz process of this number listens."""
        return self.run / f"authz-{index}.sock"


def existing_folder(path: Path) -> StateFolder:
    """A folder that `up` has made before; of our own version, or nothing is read from it."""
    folder = StateFolder(path.absolute())
    if not folder.version.exists():
        message = f"There is no stack in {path}: run `neuronetz-gateway up --state {path}` first."
        raise CommandError(message)
    found = folder.version.read_text().strip()
    if found != VERSION:
        message = (
            f"The state folder {path} has version {found}, this program needs {VERSION}: "
            "use the program that made it, or another folder with --state."
        )
        raise CommandError(message)
    return folder


def make_folder(path: Path) -> StateFolder:
    """The folder with everything in it that other processes expect to find (0700)."""
    folder = StateFolder(path.absolute())
    if folder.version.exists():
        existing_folder(path)
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CommandError(f"{path} is not empty and no state folder: choose another with --state.")
    try:
        make_run_folder(folder.path)
    except OSError as error:
        message = f"The state folder {path} can't be used ({error.strerror}): choose another with --state."
        raise CommandError(message) from error
    write_atomically(folder.version, f"{VERSION}\n".encode())
    for part in (folder.journal.parent, folder.backends):
        part.mkdir(exist_ok=True)
    if not folder.pepper.exists():
        write_atomically(folder.pepper, secrets.token_hex(32).encode(), mode=0o400)
    return folder


def make_run_folder(state: Path) -> Path:
    """Make the state folder (0700) where there is none yet, and in it the folder of its sockets."""
    run = state / "run"
    if len(os.fsencode(run / _LONGEST_SOCKET)) > _SOCKET_PATH_BYTES:
        raise CommandError(
            f"The path of the state folder {state} is too long for sockets: choose a shorter one."
        )
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    run.mkdir(exist_ok=True)
    user = machine.unprivileged_user()
    if user is not None:
        # PostgreSQL refuses root and runs as this user, who must be able to make its socket here.
        os.chown(run, 0, user)
    run.chmod(0o770)
    (state / "logs").mkdir(exist_ok=True)
    return run


def write_atomically(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Readers see the old content or the new one, never a part."""
    attempt = path.with_name(f"{path.name}.new")
    attempt.unlink(missing_ok=True)
    with os.fdopen(os.open(attempt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    attempt.rename(path)


def save_stores(folder: StateFolder, stores: Stores) -> None:
    """Tell the other commands where this stack's stores are."""
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
                f"`neuronetz-gateway down --state {folder.path}` stops it."
            )
            raise CommandError(message) from None
        yield

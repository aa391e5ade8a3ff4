"""PostgreSQL with a hot standby that has every commit first: Debian's own, since the wheel's has no TLS."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from tests.scale.certificates import Authority, Certificate
from tests.scale.network import NETWORK, Machine, Unfit
from tests.up.stacks import until

PORT: Final = 5432
_USER: Final = 65534
"""The user that root becomes for PostgreSQL."""
_PLACES: Final = "/usr/lib/postgresql"
_RULES: Final = f"""local all all trust
hostssl all all {NETWORK} scram-sha-256
hostssl replication all {NETWORK} scram-sha-256
"""


def programs() -> Path:
    """Return the folder of the newest server's programs. Raises Unfit."""
    found = sorted(Path(_PLACES).glob("*/bin/postgres"), key=lambda path: int(path.parents[1].name))
    if not found:
        raise Unfit("There is no PostgreSQL with TLS: install Debian's package postgresql.")
    return found[-1].parent


@frozen
class Server:
    """One of the two servers."""

    machine: Machine
    certificate: Certificate
    programs: Path

    @property
    def data(self) -> Path:
        """Return its folder."""
        return self.machine.folder / "data"

    def run(self, program: str, *arguments: object, **environ: str) -> None:
        """Run one of PostgreSQL's programs on this machine, as its user."""
        done = subprocess.run(
            self._argv(program, *arguments), env=self._environ() | environ, check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self, **options: object) -> subprocess.Popen[bytes]:
        """Start the server with these settings."""
        settings = {
            "listen_addresses": self.machine.address,
            "unix_socket_directories": self.machine.folder,
            "ssl": "on",
            "ssl_cert_file": self.certificate.shown,
            "ssl_key_file": self.certificate.key,
            "max_connections": 60,
            "shared_buffers": "64MB",
            **options,
        }
        given = (part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
        with (self.machine.folder / "log").open("ab") as log:
            argv = self._argv("postgres", "-D", self.data, *given)
            return subprocess.Popen(argv, env=self._environ(), stdout=log, stderr=log)

    def answers(self) -> bool:
        """Return whether it takes connections."""
        argv = self._argv("pg_isready", "-q", "-h", self.machine.folder, "-U", "gateway")
        return subprocess.run(argv, check=False).returncode == 0

    def _environ(self) -> dict[str, str]:
        """Return an environment whose home has no certificates of another user."""
        return {**os.environ, "HOME": str(self.machine.folder)}

    def _argv(self, program: str, *arguments: object) -> tuple[str, ...]:
        return self.machine.server(self.programs / program, *arguments, user=_USER)


@define
class Pair:
    """A primary that answers a commit when its standby has it, too."""

    primary: Server
    standby: Server
    authority: Authority
    _password: str = field(factory=lambda: secrets.token_hex(16), repr=False)
    _processes: list[subprocess.Popen[bytes]] = field(factory=list)

    @property
    def url(self) -> str:
        """What DATABASE_URL says: whichever of the two takes writes."""
        hosts = ",".join(f"{server.machine.address}:{PORT}" for server in (self.primary, self.standby))
        options = f"target_session_attrs=primary&sslmode=verify-full&sslrootcert={self.authority.shown}"
        return f"postgresql://gateway:{self._password}@{hosts}/gateway?{options}"

    def start(self) -> None:
        """Make both, and wait until the standby follows."""
        password = self.primary.machine.folder / "password"
        password.write_text(self._password)
        for server in (self.primary, self.standby):
            for path in (server.machine.folder, server.certificate.shown, server.certificate.key):
                shutil.chown(path, _USER, _USER)
        shutil.chown(password, _USER, _USER)
        self.primary.run(
            "initdb", "-D", self.primary.data, "-U", "gateway", "--pwfile", password, "-E", "UTF8"
        )
        (self.primary.data / "pg_hba.conf").write_text(_RULES)
        self._processes.append(self.primary.start(synchronous_standby_names="*"))
        until(self.primary.answers)
        where = f"host={self.primary.machine.address} user=gateway sslmode=verify-full"
        self.standby.run(
            *("pg_basebackup", "-D", self.standby.data, "-R", "-C", "-S", "standby"),
            *("-d", f"{where} sslrootcert={self.authority.shown}"),
            PGPASSWORD=self._password,
        )
        # Once it is promoted it has no standby of its own to wait for.
        self._processes.append(self.standby.start(synchronous_standby_names=""))
        until(self.standby.answers)

    def lose_primary(self) -> None:
        """Cut the primary off, as a machine that lost its power is, and let the standby take its place."""
        self.primary.machine.cut_off()
        self.standby.run("pg_ctl", "promote", "-w", "-D", self.standby.data)

    def kill(self) -> None:
        """End both."""
        for process in self._processes:
            process.kill()
            process.wait()

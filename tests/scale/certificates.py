"""An authority of this run's own, and a certificate of each machine's address."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from attrs import frozen

_EC: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@frozen
class Certificate:
    """The files of one machine: what it shows, and its key."""

    shown: Path
    key: Path


@frozen
class Authority:
    """Signs for addresses; whoever trusts `shown` trusts all of them."""

    folder: Path

    @property
    def shown(self) -> Path:
        """Return the certificate that signs the others."""
        return self.folder / "authority.crt"

    def certificate(self, address: str, folder: Path) -> Certificate:
        """Sign for an address."""
        made = Certificate(folder / "tls.crt", folder / "tls.key")
        signed_by = ("-CA", self.shown, "-CAkey", self.folder / "authority.key")
        named = ("-subj", f"/CN={address}", "-addext", f"subjectAltName=IP:{address}")
        _openssl(*_EC, *signed_by, *named, "-keyout", made.key, "-out", made.shown)
        return made


def authority(folder: Path) -> Authority:
    """Make an authority in a folder."""
    made = Authority(folder)
    _openssl(*_EC, "-subj", "/CN=scale-test", "-keyout", folder / "authority.key", "-out", made.shown)
    return made


def _openssl(*arguments: object) -> None:
    argv = ("openssl", "req", "-x509", *map(str, arguments))
    subprocess.run(argv, check=True, capture_output=True)

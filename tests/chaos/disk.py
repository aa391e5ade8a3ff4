"""A disk that is small enough to be filled: a tmpfs that only one stack's processes see."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

from attrs import frozen

BLOCK_BYTES = 4096

_MOUNT = 'mount -t tmpfs -o size={} tmpfs "$0" && exec "$@"'
_ROOT = ("unshare", "--mount")
_ANYBODY = ("unshare", "--user", "--map-current-user", "--keep-caps", "--mount")


@frozen
class Disk:
    """The mount point, in the mount namespace of the processes that `within` starts."""

    folder: Path
    size: str = "256k"

    @property
    def within(self) -> tuple[str, ...]:
        """Return the prefix that runs a command with the disk; its mount goes when its last process does."""
        can_mount = subprocess.run((*_ROOT, "true"), check=False, capture_output=True).returncode == 0
        return (*(_ROOT if can_mount else _ANYBODY), "sh", "-c", _MOUNT.format(self.size), str(self.folder))

    def fill(self, pid: int) -> None:
        """Leave no room on the disk of a process, but for what its files have begun to use."""
        # Block by block, since the stack writes as well: what was free a moment ago may be used.
        with self._filler(pid).open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(BLOCK_BYTES))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self, pid: int) -> None:
        """Make room again."""
        self._filler(pid).unlink()

    def seen_by(self, pid: int) -> Path:
        """The disk's folder, for whoever is outside, by way of a process that is inside."""
        return Path(f"/proc/{pid}/root{self.folder}")

    def _filler(self, pid: int) -> Path:
        return Path(f"/proc/{pid}/root{self.folder}/filler")

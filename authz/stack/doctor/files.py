"""Files: who may read secrets and sockets, and how much the disk of the journal still takes."""

from __future__ import annotations

import os
import shutil
import stat
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from attrs import frozen

from authz.stack.doctor.finding import Finding, fail, ok, summed, warn

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CHECK: Final = "files"
_MIB: Final = 1 << 20
FULL_BYTES: Final = 256 * _MIB
"""Caddy's journal is rotated at 64 MiB, and metering keeps what it has not read."""
LOW_BYTES: Final = 2048 * _MIB


class Kind(StrEnum):
    """What a file is, which decides who may do what with it."""

    PRIVATE = "secret"
    FOLDER = "folder"
    SOCKET = "socket"


@frozen(kw_only=True)
class Entry:
    """A file as it was found; mode 0 if it is missing. Others reach it if they may enter every folder."""

    path: Path
    kind: Kind
    mode: int
    owner: int
    is_reachable: bool


@frozen
class Disk:
    """The disk of a folder."""

    path: Path
    free_bytes: int


def gather(path: Path, kind: Kind) -> Entry:
    """Look at a file that is needed."""
    try:
        found = path.stat()
    except OSError:
        return Entry(path=path, kind=kind, mode=0, owner=-1, is_reachable=False)
    return Entry(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        owner=found.st_uid,
        is_reachable=all(_is_open(folder) for folder in path.absolute().parents),
    )


def _is_open(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IXOTH)
    except OSError:
        return False


def disk_of(folder: Path) -> Disk | None:
    """Measure the disk of a folder; None where there is no such folder here."""
    try:
        return Disk(folder, shutil.disk_usage(folder).free)
    except OSError:
        return None


def judge(entries: Iterable[Entry]) -> list[Finding]:
    """Judge modes and owners; root, we and the owners of the sockets may own what is ours."""
    entries = tuple(entries)
    owners = {0, os.geteuid(), *(entry.owner for entry in entries if entry.kind is Kind.SOCKET)}
    found = [finding for entry in entries if (finding := _judged(entry, owners)) is not None]
    return summed(CHECK, found, f"No other user can read or use the {len(entries)} that matter.")


_RULES: Final = (
    (
        Kind.PRIVATE,
        stat.S_IROTH | stat.S_IWOTH,
        fail,
        "Every user can read the secret {path}: run `chmod 600 {path}`, then replace it.",
    ),
    (Kind.FOLDER, stat.S_IWOTH, fail, "Every user can change what is in {path}: run `chmod o-rwx {path}`."),
    (Kind.FOLDER, stat.S_IROTH, warn, "Every user can read what is in {path}: run `chmod o-rwx {path}`."),
    (Kind.SOCKET, stat.S_IWOTH, fail, "Every user can use the socket {path}: run `chmod o-rwx {folder}`."),
)
"""Of a file that others reach: what they may not do, the first that counts."""


def _judged(entry: Entry, owners: set[int]) -> Finding | None:
    path = entry.path
    if not entry.mode:
        return warn(
            CHECK, f"The {entry.kind} {path} is not here: check GATEWAY_STATE and the paths' settings."
        )
    if entry.kind is Kind.PRIVATE and entry.owner not in owners:
        return warn(CHECK, f"{path} belongs to user {entry.owner}: give it to the user of the services.")
    for kind, bits, judged, sentence in _RULES:
        if entry.kind is kind and entry.is_reachable and entry.mode & bits:
            return judged(CHECK, sentence.format(path=path, folder=path.parent))
    return None


def judge_disk(disk: Disk | None) -> list[Finding]:
    """Judge if the journal can go on: when its disk is full, every request is refused."""
    if disk is None:
        return []
    size = f"{disk.free_bytes // _MIB:,} MiB are left for the journal in {disk.path}"
    if disk.free_bytes < FULL_BYTES:
        return [fail("disk", f"{size}: make room now, a full disk refuses every request.")]
    if disk.free_bytes < LOW_BYTES:
        return [warn("disk", f"{size}: make room, a full disk refuses every request.")]
    return [ok("disk", f"{size}.")]

"""The links of a chain as texts: what a hash stands for is written here, and in sql/migrations."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from attrs import frozen

from authz.chains import tree

if TYPE_CHECKING:
    from collections.abc import Iterator

AUDIT: Final = "audit"
"""The chain of what administrators changed; every other one is of ledger rows."""

VERSION: Final = 1
"""How rows and links are written as texts."""

_LEDGER_ID_BYTES: Final = 18
_AUDIT_ID_BYTES: Final = 8
_UUID_BYTES: Final = 16


@frozen
class Link:
    """One link: what a statement has added to the ledger or the audit."""

    chain: str
    number: int
    at: datetime
    version: int
    ids: bytes
    leaves: bytes
    hash: bytes

    def text(self, previous: bytes) -> str:
        """Return what the link's hash stands for, if it follows from this one."""
        count, root = len(self.leaves) // tree.HASH_BYTES, tree.root(tree.split(self.leaves)).hex()
        at = f"{self.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
        words = ("batch", self.version, self.chain, self.number, at, count, root, previous.hex())
        return " ".join(map(str, words))

    def follows(self, previous: bytes) -> bool:
        """Return whether its hash is that of its content after this one."""
        known = self.version == VERSION and len(self.leaves) % tree.HASH_BYTES == 0 and self.leaves != b""
        return known and digest(self.text(previous)) == self.hash

    def rows(self) -> Iterator[str]:
        """Yield the names of its rows."""
        width = _AUDIT_ID_BYTES if self.chain == AUDIT else _LEDGER_ID_BYTES
        for at in range(0, len(self.ids), width):
            yield named(self.ids[at : at + width])


@frozen
class Day:
    """The links of a chain on one day, under one root."""

    chain: str
    day: date
    first: int
    last: int
    root: bytes
    hash: bytes
    """Of its last link."""

    @property
    def text(self) -> str:
        """Return what the day's hash stands for."""
        return f"day {self.chain} {self.day} {self.first} {self.last} {self.root.hex()} {self.hash.hex()}"


def digest(text: str) -> bytes:
    """Return the hash of a text."""
    return hashlib.sha256(text.encode()).digest()


def beginning(chain: str, database: UUID) -> bytes:
    """Return what the first link of a chain follows from."""
    return digest(f"chain {chain} of {database}")


def named(row: bytes) -> str:
    """Return the name of a row by its id in a link."""
    if len(row) == _AUDIT_ID_BYTES:
        return f"row {int.from_bytes(row)} of the audit"
    request, entry = UUID(bytes=row[:_UUID_BYTES]), int.from_bytes(row[_UUID_BYTES:])
    return f"request {request}" if entry == 0 else f"entry {entry} of request {request}"


def day_of(at: datetime, closed: date | None) -> date:
    """Return the day under which a link of a moment is counted, after the last one that is closed."""
    day = at.astimezone(UTC).date()
    return day if closed is None else max(day, closed + timedelta(days=1))

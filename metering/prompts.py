"""Sealed prompts and answers: from Caddy's spool into Postgres, and out of it on the day they expire.

A file of the spool is removed once all its pieces are committed. Whatever comes between is repeated: a
piece is stored once.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

import msgspec
import structlog
from attrs import define, frozen
from msgspec import Meta

import sql
from metering.connection import Connection, RowsRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from metering.metrics import Metrics

log: Final = structlog.get_logger()

READY: Final = "*.ready"
"""The files that Caddy has ended; it writes to another one."""

FILES_AT_ONCE: Final = 8
"""Files that are taken in a row: a full spool is no reason to neglect other duties."""

PIECES_AT_ONCE: Final = 128
"""Pieces of one statement; with 512 of 12 KB PostgreSQL takes twice the CPU time for each."""

_LATEST_S: Final = 250_000_000_000
"""The year 9892: Python knows no moment after 9999."""


class Piece(msgspec.Struct, frozen=True):
    """A sealed piece of a prompt or an answer, one line of the spool."""

    v: Literal[1]
    id: UUID
    tenant: UUID
    key: UUID
    at_ms: Annotated[int, Meta(ge=0, le=1000 * _LATEST_S)]
    expires: Annotated[int, Meta(ge=0, le=_LATEST_S)]
    direction: Literal[0, 1, 2]
    index: Annotated[int, Meta(ge=0, lt=2**32)]
    flags: Annotated[int, Meta(ge=0, lt=2**8)]
    vault: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    box: bytes


_decoder: Final = msgspec.json.Decoder(Piece)


@define
class PromptStore(Connection):
    """Pieces in Postgres. Metering may store them and have what has expired removed, but read none.

    Every method raises StoreUnavailable; `store` raises RowsRefusedError too.
    """

    _queries: ClassVar[Any] = sql.load("prompts")

    async def store(self, pieces: Sequence[Piece], *, most_bytes: int) -> int:
        """Store pieces; returns how many of them exceeded what their tenant may have."""
        beyond: int = await self._one(
            "store",
            request_ids=[piece.id for piece in pieces],
            directions=[piece.direction for piece in pieces],
            indexes=[piece.index for piece in pieces],
            flags=[piece.flags for piece in pieces],
            tenant_ids=[piece.tenant for piece in pieces],
            key_ids=[piece.key for piece in pieces],
            moments=[_moment(piece.at_ms / 1000) for piece in pieces],
            expiries=[_moment(piece.expires) for piece in pieces],
            vaults=[piece.vault for piece in pieces],
            boxes=[piece.box for piece in pieces],
            most=most_bytes,
        )
        return beyond

    async def expire(self) -> int:
        """Remove what has expired; returns how many pieces went."""
        expired: int = await self._one("expire")
        return expired


@frozen
class Spool:
    """Caddy's folder of sealed pieces, and how much a tenant may have of them in Postgres."""

    folder: Path
    most_bytes: int

    async def take(self, store: PromptStore, metrics: Metrics) -> None:
        """Store the oldest files and remove them."""
        for path in sorted(self.folder.glob(READY))[:FILES_AT_ONCE]:
            pieces, rejected = _read(path)
            for start in range(0, len(pieces), PIECES_AT_ONCE):
                rejected += await self._store(store, pieces[start : start + PIECES_AT_ONCE], metrics)
            metrics.prompt_pieces["rejected"].inc(rejected)
            if rejected:
                log.warning("metering.prompts_rejected", name=path.name, pieces=rejected)
            path.unlink()

    async def _store(self, store: PromptStore, pieces: Sequence[Piece], metrics: Metrics) -> int:
        """Store pieces, by halves where Postgres refuses some; returns how many it refused."""
        if not pieces:
            return 0
        try:
            beyond = await store.store(pieces, most_bytes=self.most_bytes)
        except RowsRefusedError:
            if len(pieces) == 1:
                return 1
            middle = len(pieces) // 2
            first = await self._store(store, pieces[:middle], metrics)
            return first + await self._store(store, pieces[middle:], metrics)
        metrics.prompt_pieces["stored"].inc(len(pieces) - beyond)
        metrics.prompt_pieces["beyond"].inc(beyond)
        return 0


def _read(path: Path) -> tuple[list[Piece], int]:
    """Read the pieces of a file, and how many lines are none: one that Caddy's end has torn, say."""
    pieces, rejected = [], 0
    for line in path.read_bytes().splitlines():
        try:
            pieces.append(_decoder.decode(line))
        except msgspec.DecodeError:
            rejected += 1
    return pieces, rejected


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

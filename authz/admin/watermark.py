"""How far exports have come: the head of each chain of the ledger, whose links are added in one order.

Rows can't be continued by their time or id: a long request, a correction or another node's journal comes
later than younger ones. A link has its number when it is committed, and none comes before one that was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self
from uuid import UUID

import msgspec
from attrs import frozen

import sql
from authz.errors import CommandError
from authz.stack.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

LINKS_AT_ONCE: Final = 100
ROWS_AT_ONCE: Final = 1000

_ID_BYTES: Final = 18
_UUID_BYTES: Final = 16

_queries = sql.load("usage")


class _File(msgspec.Struct, forbid_unknown_fields=True):
    database: UUID
    chains: dict[str, int]


@frozen
class Watermark:
    """The number of the last link of each chain, by its name, whose rows were exported."""

    database: UUID
    chains: Mapping[str, int]

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read the file of the last export; None if there is none. Raises CommandError."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_File)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CommandError(f"--watermark {path} can't be read: {error.strerror}.") from error
        except msgspec.MsgspecError as error:
            sentence = f"--watermark {path} is no file of an export: name another one, which is written anew."
            raise CommandError(sentence) from error
        return cls(found.database, found.chains)

    def write(self, path: Path) -> None:
        """Write the file, the old one until it is whole. Raises CommandError."""
        text = msgspec.json.encode({"database": self.database, "chains": dict(self.chains)}) + b"\n"
        try:
            write_atomically(path, text, mode=0o644)
        except OSError as error:
            raise CommandError(f"--watermark {path} can't be written: {error.strerror}.") from error


@frozen
class Part:
    """The links of a chain that one export takes: from the one after `after` to `last`."""

    chain: int
    after: int
    last: int


async def since(connection: Any, before: Watermark | None) -> tuple[list[Part], Watermark]:
    """Return what was added since the last export, and the watermark of this one.

    Raises CommandError where the watermark is another database's, or what it continues is dropped.
    """
    database = await _queries.database_id(connection)
    if before is not None and before.database != database:
        raise CommandError("--watermark is of another database: name a file for this one, or a new one.")
    heads = [row async for row in _queries.chain_heads(connection)]
    parts = []
    for row in heads:
        done = 0 if before is None else before.chains.get(row["name"], 0)
        if done > row["head"]:
            raise CommandError(
                "--watermark is ahead of this database, which was restored from a backup since: "
                "begin anew with a new file."
            )
        if before is not None and done < row["dropped"]:
            raise CommandError(
                f"--watermark is too old: links {done + 1} to {row['dropped']} of the chain {row['name']} "
                "are dropped with their days. Begin anew with a new file, which gets all that is kept."
            )
        parts.append(Part(row["id"], done, row["head"]))
    return parts, Watermark(database, {row["name"]: row["head"] for row in heads})


async def added(connection: Any, part: Part) -> AsyncIterator[list[Any]]:
    """Yield the rows of some links, page by page, in the order in which they were added."""
    after = part.after
    while links := [
        row
        async for row in _queries.links_added(
            connection, chain=part.chain, after=after, last=part.last, count=LINKS_AT_ONCE
        )
    ]:
        after = links[-1]["number"]
        ids = [
            (UUID(bytes=link["ids"][at : at + _UUID_BYTES]), _entry(link["ids"], at))
            for link in links
            for at in range(0, len(link["ids"]), _ID_BYTES)
        ]
        for first in range(0, len(ids), ROWS_AT_ONCE):
            yield await _rows(connection, ids[first : first + ROWS_AT_ONCE])


def _entry(ids: bytes, at: int) -> int:
    return int.from_bytes(ids[at + _UUID_BYTES : at + _ID_BYTES])


async def _rows(connection: Any, ids: list[tuple[UUID, int]]) -> list[Any]:
    requests = [request for request, _ in ids]
    found = {
        (row["request_id"], row["entry"]): row
        async for row in _queries.rows_added(
            connection, requests=requests, first=min(requests), last=max(requests)
        )
    }
    return [found[each] for each in ids if each in found]

"""Prompts that are kept: list them, open one with the private key, erase those of a tenant."""

from __future__ import annotations

import struct
from datetime import datetime  # noqa: TC003 (attrs reads it)
from enum import IntFlag
from typing import TYPE_CHECKING, Final
from uuid import UUID  # noqa: TC003 (attrs reads it)

from attrs import field, frozen

import sql
from authz.accounts import vault
from authz.accounts.keys import find_key
from authz.accounts.tenants import find_tenant
from authz.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import asyncpg

    from authz.accounts.session import Session
    from authz.accounts.vault import PrivateKeys

WAYS: Final = ("prompt", "answer")
"""The two texts of a request, by the number of their direction."""

BOTH: Final = 2
"""The direction of a piece with both texts of a short request, and the length of the first behind them."""

_MAGIC: Final = b"NZP1"
_LENGTH: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">4s16s16sBBI")
"""What begins the inside of a box: magic, request, tenant, direction, flags, index (caddy/internal/vault)."""

_queries = sql.load("prompts")


class Ends(IntFlag):
    """How a piece ends its text."""

    LAST = 1
    CUT = 2
    LOST = 4


@frozen
class KeptPrompt:
    """A request of which prompt and answer are kept, as it shows without being opened."""

    request: UUID
    at: datetime
    tenant: str
    key: str
    prefix: str
    model: str | None
    bytes: int
    state: str
    expires: datetime


@frozen
class Opened:
    """A prompt and its answer, and what is wrong with them."""

    request: UUID
    at: datetime
    tenant: str
    expires: datetime
    prompt: bytes = field(repr=False)
    answer: bytes = field(repr=False)
    problems: tuple[str, ...]


async def list_prompts(
    session: Session,
    *,
    tenant: str | None,
    prefix: str | None,
    since: datetime,
    most: int,
    after: UUID | None = None,
) -> list[KeptPrompt]:
    """List the requests whose prompts are kept, the newest first, behind another; nothing is opened."""
    async with session.store.connection() as connection:
        tenant_id = None if tenant is None else (await find_tenant(connection, tenant))["id"]
        key_id = None if prefix is None else (await find_key(connection, prefix))["id"]
        rows = _queries.list_prompts(
            connection,
            tenant=tenant_id,
            key=key_id,
            since=since,
            after=after,
            most=most,
            overhead=_HEAD.size + vault.OVERHEAD,
        )
        return [
            KeptPrompt(
                row["request_id"],
                row["at"],
                row["tenant"],
                row["key"],
                row["prefix"],
                row["model"],
                row["bytes"],
                _state(row),
                row["expires_at"],
            )
            async for row in rows
        ]


def _state(row: asyncpg.Record) -> str:
    """Say if all of a request is there, as far as that shows without opening it."""
    ends = Ends(row["ends"])
    if row["is_beyond"]:
        return "beyond the tenant's size"
    if not row["is_whole"] or Ends.LOST in ends:
        return "incomplete"
    return "cut" if Ends.CUT in ends else "whole"


async def open_prompt(session: Session, request: UUID, keys: PrivateKeys) -> Opened:
    """Open a prompt and its answer, and note in the audit who did, before anything is returned.

    Raises CommandError if there is none, or none that these keys open.
    """
    async with session.store.connection() as connection, connection.transaction():
        rows = [row async for row in _queries.pieces(connection, request=request)]
        if not rows:
            raise CommandError(f"No prompt of {request} is kept, or not any more: see `prompts list`.")
        joined = [row for row in rows if row["direction"] == BOTH]
        texts = _joined(rows, joined[0], keys) if joined else [_text(rows, way, keys) for way in (0, 1)]
        first = rows[0]
        problems = tuple(problem for _, found in texts for problem in found)
        await session.audit(
            connection,
            "prompt_opened",
            tenant=first["tenant_id"],
            key=first["key_id"],
            new={"request": str(request), "vault": sorted({row["vault"] for row in rows})},
        )
    return Opened(
        request, first["at"], first["tenant"], first["expires_at"], texts[0][0], texts[1][0], problems
    )


def _joined(
    rows: Sequence[asyncpg.Record], row: asyncpg.Record, keys: PrivateKeys
) -> list[tuple[bytes, list[str]]]:
    """Take the two texts out of the one piece that they share."""
    content, problem = _opened(row, keys)
    problems = [f"The piece of prompt and answer {problem}."] if problem else []
    if len(rows) > 1:
        problems.append("More is stored of it than was sealed.")
    if problem:
        return [(b"", problems), (b"", [])]
    (length,) = _LENGTH.unpack(content[-_LENGTH.size :])
    return [(content[:length], problems), (content[length : -_LENGTH.size], [])]


def _text(rows: Sequence[asyncpg.Record], way: int, keys: PrivateKeys) -> tuple[bytes, list[str]]:
    """Put a text together of its pieces, and name what is wrong with it."""
    text, problems, expected, is_ended = b"", [], 0, False
    for row in rows:
        if row["direction"] != way:
            continue
        if row["index"] != expected:
            problems.append(f"The {WAYS[way]} lacks what stood before piece {row['index']}.")
        expected = row["index"] + 1
        content, problem = _opened(row, keys)
        text += content
        problems += [f"Piece {row['index']} of the {WAYS[way]} {problem}."] if problem else []
        is_ended = bool(row["flags"] & Ends.LAST)
        problems += [f"The {WAYS[way]} {said}." for said in _ended(Ends(row["flags"] & 7))]
    if not is_ended:
        problems.append(f"The {WAYS[way]} lacks its end.")
    return text, problems


def _opened(row: asyncpg.Record, keys: PrivateKeys) -> tuple[bytes, str]:
    """Open a piece; what is wrong with it, if anything is, else ""."""
    if row["box"] is None:
        return b"", "was not kept: the tenant had too much already"
    plain = keys.open(row["vault"], row["box"])
    if plain is None or len(plain) < _HEAD.size:
        return b"", "was altered"
    sealed = _HEAD.unpack_from(plain)
    stored = (row["request_id"].bytes, row["tenant_id"].bytes, row["direction"], row["flags"], row["index"])
    if sealed != (_MAGIC, *stored):
        return b"", "is another one, put in its place"
    return plain[_HEAD.size :], ""


def _ended(ends: Ends) -> Iterator[str]:
    if Ends.CUT in ends:
        yield "goes on beyond the greatest size that is kept"
    if Ends.LOST in ends:
        yield "goes on, and there was no memory to keep more of it"


async def erase_prompts(session: Session, tenant: str) -> int:
    """Erase all prompts of a tenant, also those that are still on their way; returns how many there were."""
    async with session.store.connection() as connection, connection.transaction():
        found = await find_tenant(connection, tenant)
        requests: int = await _queries.erase(connection, tenant=found["id"])
        await session.audit(connection, "prompts_erased", tenant=found["id"], new={"requests": requests})
    return requests

"""Prompts that are kept: what lists, opens and erases them, and what it finds wrong."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import pytest
from nacl.public import PrivateKey

from authz.accounts import vault
from authz.accounts.keys import CreatedKey, find_key
from authz.accounts.prompts import erase_prompts, list_prompts, open_prompt
from authz.accounts.session import Session
from authz.accounts.tenants import create_tenant
from authz.accounts.vault import PrivateKeys
from authz.admin.audit import audit
from authz.errors import CommandError
from tests.authz.asking import uuid7
from tests.authz.sealing import sealed

LONG_AGO: Final = datetime(2026, 1, 1, tzinfo=UTC)
PAIR: Final = PrivateKey.generate()
KEYS: Final = PrivateKeys((PAIR,))
LAST, CUT, LOST = 1, 2, 4

Row = tuple[int, int, int, bytes | None]
"""A piece: direction, index, flags and text; None is one without a box."""


class Prompts:
    """Puts sealed pieces into Postgres as metering does."""

    def __init__(self, owner: asyncpg.Connection, tenant: UUID, key: UUID) -> None:
        self.owner, self.tenant, self.key = owner, tenant, key

    async def keep(self, *rows: Row, expires: timedelta = timedelta(days=7)) -> UUID:
        """Keep a request of such pieces."""
        request, now = uuid7(), datetime.now(UTC)
        for way, index, flags, text in rows:
            head = struct.pack(">4s16s16sBBI", b"NZP1", request.bytes, self.tenant.bytes, way, flags, index)
            box = sealed(PAIR.public_key, head + (text or b""))
            await self.owner.execute(
                "SELECT store_prompts(ARRAY[$1::uuid], ARRAY[$2::smallint], ARRAY[$3::bigint], "
                "ARRAY[$4::smallint], ARRAY[$5::uuid], ARRAY[$6::uuid], ARRAY[$7::timestamptz], "
                "ARRAY[$8::timestamptz], ARRAY[$9::text], ARRAY[$10::bytea], $11)",
                request,
                way,
                index,
                flags,
                self.tenant,
                self.key,
                now,
                now + expires,
                vault.identifier(PAIR.public_key),
                box,
                0 if text is None else 2**40,
            )
        return request


@pytest.fixture
async def prompts(session: Session, key: CreatedKey, owner_of_tables: asyncpg.Connection) -> Prompts:
    """Prompts of the first key of acme."""
    async with session.store.connection() as connection, connection.transaction():
        found = await find_key(connection, key.prefix)
    return Prompts(owner_of_tables, found["tenant_id"], found["id"])


WHOLE: Final[tuple[Row, ...]] = (
    (0, 0, 0, b"the "),
    (0, 1, LAST, b"prompt"),
    (1, 0, LAST, b"\xffanswer"),
)


async def test_a_prompt_is_opened(session: Session, key: CreatedKey, prompts: Prompts) -> None:
    """What is opened is what was sealed, byte for byte; who opened it stands in the audit."""
    request = await prompts.keep(*WHOLE)
    found = await open_prompt(session, request, KEYS)
    assert (b"the prompt", b"\xffanswer", ()) == (found.prompt, found.answer, found.problems)
    assert "acme" == found.tenant
    (event,) = [event for event in await audit(session, since=LONG_AGO) if event.action == "prompt_opened"]
    assert ("tester", "acme", "first") == (event.actor, event.tenant, event.key)
    assert {"request": str(request), "vault": [vault.identifier(PAIR.public_key)]} == event.new


async def test_what_is_not_opened_is_not_in_the_audit(session: Session, prompts: Prompts) -> None:
    """Neither an unknown request nor a foreign key opens anything."""
    request = await prompts.keep(*WHOLE)
    with pytest.raises(CommandError, match=r"No prompt of .* is kept"):
        await open_prompt(session, uuid7(), KEYS)
    with pytest.raises(CommandError, match="is needed for this"):
        await open_prompt(session, request, PrivateKeys((PrivateKey.generate(),)))
    assert [] == [event for event in await audit(session, since=LONG_AGO) if "prompt" in event.action]


@pytest.mark.parametrize(
    ("rows", "state", "problems"),
    [
        (WHOLE, "whole", ()),
        (WHOLE[:1] + WHOLE[2:], "incomplete", ("The prompt lacks its end.",)),
        (WHOLE[1:], "incomplete", ("The prompt lacks what stood before piece 1.",)),
        (WHOLE[:2], "incomplete", ("The answer lacks its end.",)),
        (
            (*WHOLE[:2], (1, 0, LAST | CUT, b"a")),
            "cut",
            ("The answer goes on beyond the greatest size that is kept.",),
        ),
        (
            (*WHOLE[:2], (1, 0, LAST | LOST, b"a")),
            "incomplete",
            ("The answer goes on, and there was no memory to keep more of it.",),
        ),
        (
            (*WHOLE[:2], (1, 0, LAST, None)),
            "beyond the tenant's size",
            ("Piece 0 of the answer was not kept: the tenant had too much already.",),
        ),
    ],
)
async def test_what_is_not_whole_shows(
    session: Session, prompts: Prompts, rows: tuple[Row, ...], state: str, problems: tuple[str, ...]
) -> None:
    """A missing or cut piece shows in the list, and when it is opened; the rest opens all the same."""
    request = await prompts.keep(*rows)
    (listed,) = await list_prompts(session, tenant=None, prefix=None, since=LONG_AGO, most=10)
    assert (request, state) == (listed.request, listed.state)
    found = await open_prompt(session, request, KEYS)
    assert problems == found.problems
    kept = {way: b"".join(row[3] or b"" for row in rows if row[0] == way) for way in (0, 1)}
    assert (kept[0], kept[1]) == (found.prompt, found.answer)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("SET box = set_byte(box, 59, get_byte(box, 59) # 1)", "Piece 0 of the answer was altered."),
        ("SET flags = 3", "Piece 0 of the answer is another one, put in its place."),
        ("SET box = (SELECT box FROM prompt_pieces WHERE direction = 0 AND index = 1)", "is another one"),
        ("SET box = '\\x'", "Piece 0 of the answer was altered."),
        ("SET index = 1", "The answer lacks what stood before piece 1."),
        ("SET tenant_id = gen_random_uuid()", "Piece 0 of the answer is another one, put in its place."),
    ],
)
async def test_a_change_in_the_database_shows(
    session: Session, prompts: Prompts, change: str, problem: str
) -> None:
    """A piece that was altered, swapped or given to another tenant shows when it is opened."""
    request = await prompts.keep(*WHOLE)
    await prompts.owner.execute(f"UPDATE prompt_pieces {change} WHERE direction = 1")
    found = await open_prompt(session, request, KEYS)
    assert any(problem in said for said in found.problems)
    assert b"the prompt" == found.prompt
    assert b"" == found.answer


SHARED: Final[Row] = (2, 0, LAST, b"the prompt\xffanswer" + struct.pack(">I", 10))


ALTERED: Final = "The piece of prompt and answer is another one, put in its place."
TOO_MUCH: Final = "The piece of prompt and answer was not kept: the tenant had too much already."


@pytest.mark.parametrize(
    ("rows", "change", "state", "problems"),
    [
        ([SHARED], "flags = 1", "whole", ()),
        ([SHARED], "flags = 3", "cut", (ALTERED,)),
        ([(2, 0, LAST, None)], "flags = 1", "beyond the tenant's size", (TOO_MUCH,)),
        ([SHARED, WHOLE[0]], "vault = vault", "incomplete", ("More is stored of it than was sealed.",)),
    ],
)
async def test_a_piece_of_both(
    session: Session, prompts: Prompts, rows: list[Row], change: str, state: str, problems: tuple[str, ...]
) -> None:
    """Prompt and answer of a short request share a piece, of which the same holds."""
    request = await prompts.keep(*rows)
    await prompts.owner.execute(f"UPDATE prompt_pieces SET {change}")  # noqa: S608
    (listed,) = await list_prompts(session, tenant=None, prefix=None, since=LONG_AGO, most=10)
    assert state == listed.state
    found = await open_prompt(session, request, KEYS)
    assert problems == found.problems
    is_opened = not {ALTERED, TOO_MUCH} & set(problems)
    assert ((b"the prompt", b"\xffanswer") if is_opened else (b"", b"")) == (found.prompt, found.answer)


async def test_another_requests_piece_shows(session: Session, prompts: Prompts) -> None:
    """Two answers that were swapped between requests show in both."""
    requests = [await prompts.keep(*WHOLE) for _ in range(2)]
    await prompts.owner.execute(
        "UPDATE prompt_pieces AS p SET box = o.box FROM prompt_pieces AS o "
        "WHERE o.request_id <> p.request_id AND o.direction = p.direction AND o.index = p.index"
    )
    for request in requests:
        found = await open_prompt(session, request, KEYS)
        assert 3 == len([said for said in found.problems if "put in its place" in said])


async def test_the_list_opens_nothing(session: Session, key: CreatedKey, prompts: Prompts) -> None:
    """The list needs no private key: it has sizes and owners, the newest first, of the key that is named."""
    first = await prompts.keep(*WHOLE)
    second = await prompts.keep(*WHOLE)
    await create_tenant(session, "other")
    listed = await list_prompts(session, tenant="acme", prefix=key.prefix, since=LONG_AGO, most=10)
    assert [second, first] == [row.request for row in listed]
    one = listed[0]
    assert ("acme", "first", key.prefix, None, 17) == (one.tenant, one.key, one.prefix, one.model, one.bytes)
    assert [second] == [
        row.request for row in await list_prompts(session, tenant=None, prefix=None, since=LONG_AGO, most=1)
    ]
    behind = await list_prompts(session, tenant=None, prefix=None, since=LONG_AGO, after=second, most=10)
    assert [first] == [row.request for row in behind]
    assert [] == await list_prompts(session, tenant="other", prefix=None, since=LONG_AGO, most=10)
    future = datetime.now(UTC) + timedelta(hours=1)
    assert [] == await list_prompts(session, tenant=None, prefix=None, since=future, most=10)


async def test_what_has_expired_is_not_opened(session: Session, prompts: Prompts) -> None:
    """From its moment on a prompt neither shows nor opens, whether metering has removed it or not."""
    request = await prompts.keep(*WHOLE)
    await prompts.owner.execute("UPDATE prompt_pieces SET expires_at = now()")
    assert [] == await list_prompts(session, tenant=None, prefix=None, since=LONG_AGO, most=10)
    with pytest.raises(CommandError, match="or not any more"):
        await open_prompt(session, request, KEYS)


async def test_an_erasure_is_audited(session: Session, prompts: Prompts) -> None:
    """All prompts of a tenant go at once; who erased how many stands in the audit."""
    requests = [await prompts.keep(*WHOLE) for _ in range(2)]
    assert 2 == await erase_prompts(session, "acme")
    with pytest.raises(CommandError, match="No prompt of"):
        await open_prompt(session, requests[0], KEYS)
    (event,) = [event for event in await audit(session, since=LONG_AGO) if event.action == "prompts_erased"]
    assert ("acme", {"requests": 2}) == (event.tenant, event.new)
    with pytest.raises(CommandError, match="nobody"):
        await erase_prompts(session, "nobody")

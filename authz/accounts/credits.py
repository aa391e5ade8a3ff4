"""Correct the bill: take tokens off a request, or off what a tenant has used today."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 (attrs reads it)

import asyncpg
from attrs import frozen

import sql
from authz.accounts.keys import find_key
from authz.accounts.tenants import find_tenant
from authz.decision import calendar
from authz.errors import CommandError

if TYPE_CHECKING:
    from datetime import datetime

    from authz.accounts.session import Session

_queries = sql.load("accounts")


@frozen
class Credit:
    """A correction, as the ledger has it; input and output are what was taken off."""

    request: UUID
    entry: int
    input_tokens: int
    output_tokens: int


async def credit_request(
    session: Session, request: UUID, *, tokens: int, reason: str, at: datetime
) -> Credit:
    """Take tokens off a billed request, and off the windows that paid for it.

    Raises CommandError if the request is unknown, still runs, or was billed less.
    """
    try:
        async with session.store.connection() as connection:
            row = await _queries.credit_request(
                connection, request=request, tokens=tokens, at=at, actor=session.actor, reason=reason
            )
    except asyncpg.RaiseError as error:
        raise CommandError(str(error)) from error
    return _credit(row)


async def credit_tenant(
    session: Session, name: str, *, prefix: str | None, tokens: int, reason: str, at: datetime
) -> Credit:
    """Take tokens off what a tenant, and with a prefix one of its keys, has used today.

    Raises CommandError if a window would fall below 0.
    """
    try:
        async with session.store.connection() as connection:
            tenant = await find_tenant(connection, name)
            key = None if prefix is None else await find_key(connection, prefix)
            if key is not None and key["tenant_id"] != tenant["id"]:
                sentence = f"Key {prefix} is {key['tenant']}'s: give --tenant {key['tenant']}."
                raise CommandError(sentence)
            row = await _queries.credit_tenant(
                connection,
                tenant=tenant["id"],
                key=None if key is None else key["id"],
                tokens=tokens,
                at=at,
                day=date.fromisoformat(calendar.at(at, tenant["timezone"]).windows.day),
                actor=session.actor,
                reason=reason,
            )
    except asyncpg.RaiseError as error:
        raise CommandError(str(error)) from error
    return _credit(row)


def _credit(row: Any) -> Credit:
    return Credit(row["request"], row["entry"], row["input_tokens"], row["output_tokens"])

"""Several operations as one: all of them are committed, or none."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
from attrs import field, frozen

from authz.accounts.session import Session
from authz.errors import CommandError
from authz.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID


@frozen
class Event:
    """What one operation has written into the audit, without who and when."""

    action: str
    old: Any
    new: Any


class _OneConnection(Store):
    """A store that lends the connection of a transaction, in which an operation's own is a savepoint."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend the connection."""
        yield self._connection


@frozen(kw_only=True)
class Batch(Session):
    """The session of operations that share one transaction; nothing leaves it before its end."""

    events: list[Event] = field(factory=list)
    created: list[UUID] = field(factory=list)

    async def audit(
        self,
        connection: Any,
        action: str,
        *,
        tenant: UUID | None = None,
        key: UUID | None = None,
        old: object = None,
        new: object = None,
    ) -> None:
        """Note who changed what, and remember it for whoever prints the difference."""
        self.events.append(Event(action, old, new))
        await Session.audit(self, connection, action, tenant=tenant, key=key, old=old, new=new)

    async def introduce(self, tenant: UUID) -> None:
        """Remember a tenant: Redis gets to know it at the end, if there is one to commit."""
        self.created.append(tenant)

    async def publish(self) -> None:
        """Leave it to the end: what is not committed can't be in force."""


@asynccontextmanager
async def begun(session: Session, *, is_kept: bool) -> AsyncIterator[Batch]:
    """Begin a batch; at its end it is committed and published, or without is_kept undone.

    Raises CommandError if another command has changed the same in the meantime.
    """
    async with session.store.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        batch = Batch(
            settings=session.settings,
            store=_OneConnection(connection),
            limiter=session.limiter,
            actor=session.actor,
        )
        try:
            yield batch
            for tenant in batch.created if is_kept else ():
                await session.introduce(tenant)
        except BaseException as error:
            await transaction.rollback()
            if isinstance(error, asyncpg.DeadlockDetectedError):
                sentence = "Another command has changed the same at this moment: give this one again."
                raise CommandError(sentence) from error
            raise
        await (transaction.commit() if is_kept else transaction.rollback())
    if is_kept:
        await session.publish()

"""Open the stores of a stack for one command, found as every process finds them."""

from __future__ import annotations

import getpass
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from attrs import frozen

import sql
from authz import settings as settings_
from authz import versions
from authz.errors import CommandError, LimiterUnavailable
from authz.limiter.limiter import Limiter
from authz.store import ADMIN_ROLE, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from uuid import UUID

    from authz.settings import Settings

_queries = sql.load("accounts")


@frozen
class Session:
    """The open stores of one command."""

    settings: Settings
    store: Store
    limiter: Limiter
    actor: str

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
        """Note who changed what, in the transaction of the change."""
        encoded = [None if value is None else _json(value) for value in (old, new)]
        await _queries.insert_audit(
            connection,
            actor=self.actor,
            action=action,
            tenant=tenant,
            key=key,
            old=encoded[0],
            new=encoded[1],
        )

    async def publish(self) -> None:
        """Publish to Redis what was committed. Raises CommandError if Redis can't be reached."""
        try:
            await versions.publish(self.store, self.limiter)
        except LimiterUnavailable as error:
            sentence = f"Committed, but not in force yet: {error} Metering repeats it when Redis is back."
            raise CommandError(sentence) from error


@asynccontextmanager
async def opened(state: Path | None) -> AsyncIterator[Session]:
    """Open the stores of a stack for one command; Redis may be away until it is needed."""
    settings = settings_.load(os.environ, state=state)
    store = Store(settings.database_url, role=ADMIN_ROLE, connections=1)
    limiter = Limiter(settings.redis_url)
    await limiter.start()
    try:
        yield Session(settings, store, limiter, _actor())
    finally:
        await limiter.close()
        await store.close()


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name; OSError from 3.13 on
        return f"uid {os.getuid()}"


def _json(value: object) -> str:
    plain = attrs.asdict(value) if attrs.has(type(value)) else value  # type: ignore[arg-type]
    return msgspec.json.encode(plain).decode()

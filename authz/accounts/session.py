"""Open the stores of a stack for one command, found as every process finds them."""

from __future__ import annotations

import os
import pwd
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
from attrs import frozen

import sql
from authz import settings as settings_
from authz import versions
from authz.errors import CommandError, LimiterUnavailable, UsageError
from authz.limiter.limiter import Limiter
from authz.log import redacted
from authz.store import ADMIN_ROLE, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from uuid import UUID

    from authz.settings import Settings

_LONGEST_ACTOR: Final = 128

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

    async def introduce(self, tenant: UUID) -> None:
        """Make a tenant known to Redis, just before it is committed, so that it never looks lost."""
        await self.limiter.create(tenant, 1)

    async def publish(self) -> None:
        """Publish to Redis what was committed. Raises CommandError if Redis can't be reached."""
        try:
            await versions.publish(self.store, self.limiter)
        except LimiterUnavailable as error:
            sentence = f"Committed, but not in force yet: {error} Metering repeats it when Redis is back."
            raise CommandError(sentence) from error


@asynccontextmanager
async def opened(state: Path | None, *, actor: str | None = None) -> AsyncIterator[Session]:
    """Open the stores of a stack for one command; Redis may be away until it is needed.

    Without an actor, changes are those of the system user.
    """
    settings = settings_.load(os.environ, state=state)
    store = Store(settings.database_url, role=ADMIN_ROLE, connections=1)
    limiter = Limiter(settings.redis_url)
    await limiter.start()
    try:
        yield Session(settings, store, limiter, actor or system_user())
    finally:
        await limiter.close()
        await store.close()


def check_actor(actor: str) -> None:
    """Raise UsageError if a text can't stand in the audit as who changed something."""
    if not _is_actor(actor):
        raise UsageError(
            "--actor must say who asks for this: give a name or an address of at most "
            f"{_LONGEST_ACTOR} printable characters, and no API key."
        )


def system_user(*, login: Callable[[], str] = os.getlogin, process: Callable[[], int] = os.geteuid) -> str:
    """Return the name of the user who logged in, which the kernel keeps through sudo and su.

    Where none has, it is the process's own user; one without a name, as in containers, is `uid 1000`. No
    variable of the environment is asked: USER and SUDO_USER outlive what they were set for.
    """
    uid = process()
    try:
        name = login()
    except OSError:  # a service, a timer, a container
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = ""
    return name if _is_actor(name) else f"uid {uid}"


def _is_actor(text: str) -> bool:
    is_short = 0 < len(text) <= _LONGEST_ACTOR
    return is_short and text.isprintable() and text == text.strip() and redacted(text) == text


def _json(value: object) -> str:
    plain = attrs.asdict(value) if attrs.has(type(value)) else value  # type: ignore[arg-type]
    return msgspec.json.encode(plain).decode()

"""Create, list, rotate, disable, enable and revoke keys; a secret is returned once, when it is made."""

from __future__ import annotations

import re
import uuid
from datetime import datetime  # noqa: TC003 (attrs reads it)
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from attrs import frozen

import sql
from authz.accounts import scope as scope_
from authz.accounts.scope import Scope
from authz.accounts.tenants import find_tenant, no_tenant
from authz.errors import CommandError, UsageError
from authz.identity import signatures
from authz.identity.secrets import Minted, Peppers, is_well_formed, mint, registered
from authz.types import Limits, Policy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authz.accounts.session import Session

_STATES: Final = {"active": "key_enabled", "disabled": "key_disabled", "revoked": "key_revoked"}
"""What the audit calls the change to a state."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_PREFIX: Final = re.compile(r"nz_[0-9A-Za-z]{8}", re.ASCII)

_queries = sql.load("accounts")


class KeyState(StrEnum):
    """The states of keys that a list can be of."""

    ACTIVE = "active"
    DISABLED = "disabled"
    REVOKED = "revoked"
    ANY = "any"


@frozen
class Key:
    """A key as its owner may see it again and again."""

    prefix: str
    tenant: str
    key: str
    state: str
    models: list[str] | None
    cidrs: list[str] | None
    max_output: int | None
    log_prompts_s: int | None
    in_path: bool
    """If it may stand in the path of a request."""
    expires: datetime | None
    ssh_key: str | None
    """The fingerprint of the public key that signs in place of a secret."""
    created: datetime


@frozen
class CreatedKey:
    """A new secret, shown this once, or the public key that stands for one."""

    key: str
    prefix: str
    tenant: str
    name: str


async def create_key(
    session: Session,
    *,
    tenant: str,
    name: str,
    limits: Limits = Limits(),
    scope: Scope = Scope(),
    policy: Policy = Policy(),
    ssh_key: str | None = None,
) -> CreatedKey:
    """Create a key with one secret, or with a public key in place of it."""
    if not _NAME.fullmatch(name) or is_well_formed(name):  # a pasted key is no name to store
        raise UsageError(f"The key name {name!r} can't be used: take letters, digits and . _ -, at most 63.")
    minted, key = _mint(session, ssh_key), uuid.uuid4()
    try:
        async with session.store.connection() as connection, connection.transaction():
            owner = await find_tenant(connection, tenant)
            await _queries.insert_key(
                connection,
                key=key,
                tenant=owner["id"],
                name=name,
                models=scope.models,
                cidrs=scope.cidrs,
                expires_at=scope.expires_at,
                max_output=scope.max_output,
                log_prompts_s=scope.log_prompts_s,
                policy=scope_.policy_column(policy),
                **scope_.columns(limits),
            )
            await _insert_secret(connection, key, minted)
            new = scope_.key_values(await find_key(connection, minted.lookup))
            new |= {"prefix": minted.lookup, "ssh_key": ssh_key}
            await session.audit(connection, "key_created", tenant=owner["id"], key=key, new=new)
    except asyncpg.UniqueViolationError as error:
        sentence = f"The tenant {tenant!r} has a key named {name!r} already: choose another name."
        raise CommandError(sentence) from error
    await session.publish()
    return CreatedKey(minted.secret, minted.lookup, tenant, name)


async def list_keys(
    session: Session,
    tenant: str | None,
    *,
    state: KeyState | None = None,
    beginning: str = "",
    after: str | None = None,
    count: int | None = None,
) -> list[Key]:
    """List the keys of a tenant, or of all, oldest first; a key with two secrets shows twice.

    Without a state, what has ended for good is left out: revoked keys and secrets of before a rotation. With
    `after`, a prefix, and `count` it is a part of the list.
    """
    async with session.store.connection() as connection:
        if tenant is not None and not await _queries.is_tenant(connection, name=tenant):
            raise no_tenant(tenant)
        if after is not None:
            await find_key(connection, after)
        found = _queries.list_keys(
            connection, tenant=tenant, state=state or "", beginning=beginning, after=after, count=count
        )
        return [
            Key(
                prefix=row["prefix"],
                tenant=row["tenant"],
                key=row["name"],
                state=row["state"],
                models=row["models"],
                cidrs=row["cidrs"],
                max_output=row["max_output"],
                log_prompts_s=row["log_prompts_s"],
                in_path=row["in_path"],
                expires=row["expires_at"],
                ssh_key=row["public_key"] and signatures.fingerprint(row["public_key"]),
                created=row["created_at"],
            )
            async for row in found
        ]


async def rotate_key(
    session: Session, prefix: str, *, grace_ends: datetime, ssh_key: str | None = None
) -> CreatedKey:
    """Give a key a new secret; the older ones work until the grace period ends. Limits stay the key's."""
    minted = _mint(session, ssh_key)
    async with session.store.connection() as connection, connection.transaction():
        key = await find_key(connection, prefix)
        if key["state"] == "revoked":
            raise CommandError(f"Key {prefix} is revoked for good: create another with create-key.")
        old = await _secrets(connection, key["id"])
        await _insert_secret(connection, key["id"], minted)
        await _queries.expire_secrets(connection, key=key["id"], at=grace_ends, spared=minted.lookup)
        await _queries.touch_key(connection, key=key["id"])
        new = await _secrets(connection, key["id"], named=old)
        await session.audit(
            connection,
            "key_rotated",
            tenant=key["tenant_id"],
            key=key["id"],
            old={"secrets": old},
            new={"secrets": new, "ssh_key": ssh_key},
        )
    await session.publish()
    return CreatedKey(minted.secret, minted.lookup, key["tenant"], key["name"])


async def end_secret(session: Session, prefix: str, *, at: datetime) -> asyncpg.Record:
    """End one of a key's secrets; in force when this returns. Raises CommandError if it is the last.

    One that has ended already is no change.
    """
    async with session.store.connection() as connection, connection.transaction():
        key = await find_key(connection, prefix)
        old = await _secrets(connection, key["id"], at=at)
        if list(old) == [prefix] and key["state"] != "revoked":
            raise CommandError(
                f"{prefix} is the last secret of {key['name']}: `rotate-key --prefix {prefix} --grace 0m` "
                "puts another in its place, and `revoke-key` ends the key."
            )
        if prefix in old:
            await _queries.end_secret(connection, lookup=prefix, at=at)
            await _queries.touch_key(connection, key=key["id"])
            new = await _secrets(connection, key["id"], at=at, named=old)
            await session.audit(
                connection,
                "secret_revoked",
                tenant=key["tenant_id"],
                key=key["id"],
                old={"secrets": old},
                new={"secrets": new},
            )
    await session.publish()
    return key


async def set_key_state(session: Session, prefix: str, state: str) -> asyncpg.Record:
    """Revoke (for good, with all its secrets), disable or enable a key; in force when this returns.

    A key that is in the state already is no change, and no event.
    """
    async with session.store.connection() as connection, connection.transaction():
        key = await find_key(connection, prefix)
        if key["state"] == "revoked" and state != "revoked":
            raise CommandError(f"Key {prefix} is revoked for good: create another with create-key.")
        if key["state"] != state:
            await _queries.set_key_state(connection, key=key["id"], state=state)
            old, new = {"state": key["state"]}, {"state": state}
            await session.audit(
                connection, _STATES[state], tenant=key["tenant_id"], key=key["id"], old=old, new=new
            )
    await session.publish()
    return key


async def find_key(connection: Any, prefix: str) -> asyncpg.Record:
    """Find and lock the key of a public handle. Raises CommandError if there is none."""
    check_prefix(prefix)
    row: asyncpg.Record | None = await _queries.find_key(connection, prefix=prefix)
    if row is None:
        raise CommandError(f"There is no key {prefix}: see `neuronetz-gateway list-keys`.")
    return row


def check_prefix(prefix: str) -> None:
    """Raise UsageError if a text can't be a key's public handle."""
    if not _PREFIX.fullmatch(prefix):
        sentence = "A prefix is a key's first 11 characters (nz_xxxxxxxx): see `neuronetz-gateway list-keys`."
        raise UsageError(sentence)


async def _secrets(
    connection: Any, key: uuid.UUID, *, at: datetime | None = None, named: Iterable[str] = ()
) -> dict[str, datetime | None]:
    """Return the handles of a key's secrets and when each ends: those that work, and those named."""
    rows = _queries.secrets_of(connection, key=key, at=at, named=list(named))
    return {row["lookup"]: row["expires_at"] async for row in rows}


def _mint(session: Session, ssh_key: str | None) -> Minted:
    pepper = Peppers.read(session.settings.pepper_file).alive[0]
    return mint(pepper) if ssh_key is None else registered(pepper, ssh_key)


async def _insert_secret(connection: Any, key: uuid.UUID, minted: Minted) -> None:
    """Store a secret. Raises CommandError if it is a public key that was registered before."""
    public_key = None if is_well_formed(minted.secret) else minted.secret
    try:
        await _queries.insert_secret(
            connection,
            lookup=minted.lookup,
            key=key,
            tag=minted.tag,
            pepper_id=minted.pepper_id,
            hash=minted.hash,
            public_key=public_key,
        )
    except asyncpg.UniqueViolationError as error:
        sentence = (
            f"The public key {minted.lookup} is registered already, of a revoked key maybe: "
            "make another with `ssh-keygen -t ed25519`."
        )
        raise CommandError(sentence) from error

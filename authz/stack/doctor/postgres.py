"""Postgres: its version, schema, roles and connections, and when it was backed up."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from attrs import evolve, frozen

import sql
from authz import postgres
from authz.stack.doctor import clocks
from authz.stack.doctor.finding import Finding, fail, ok, summed, warn
from authz.store import ADMIN_ROLE, AUTHZ_ROLE, METERING_ROLE, UNREACHABLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from uuid import UUID

    from authz.stack.doctor.clocks import Clock

OLDEST: Final = 150_000
"""PostgreSQL 15, as `server_version_num` writes it."""
OF_A_DECIDER: Final = 5
OF_THE_REST: Final = 11
"""Connections of an authz process, and of metering and the commands together."""
STALE_BACKUP: Final = timedelta(hours=49)
"""A backup a day may be late, or fail once."""
ROLES: Final = (ADMIN_ROLE, AUTHZ_ROLE, METERING_ROLE)
CHECK: Final = "postgres"
_WITHIN_S: Final = 5.0

_queries = sql.load("doctor")


@frozen
class Node:
    """A node that is not retired, and the last end of its journal that metering has committed."""

    id: UUID
    read_until: datetime | None


@frozen(kw_only=True)
class Facts:
    """Postgres as it was seen. `foreign` are connections to other databases; `applied` is None if hidden."""

    version: str
    number: int
    is_standby: bool
    most_connections: int
    foreign: int
    applied: frozenset[str] | None = None
    roles: frozenset[str] = frozenset()
    excess: tuple[str, ...] = ()
    backup_at: datetime | None = None
    nodes: tuple[Node, ...] = ()
    clock: Clock


async def gather(url: str) -> Facts | str:
    """Ask Postgres as the user of the URL; the reason if that can't be done."""
    try:
        async with _connected(url) as connection:
            server = await _queries.server(connection)
            facts = Facts(
                version=server["version"],
                number=server["number"],
                is_standby=server["is_standby"],
                most_connections=server["most_connections"],
                foreign=server["foreign_connections"],
                clock=await clocks.read("Postgres", lambda: _queries.clock(connection)),
            )
            return await _described(connection, facts)
    except (*UNREACHABLE, asyncpg.PostgresError, ValueError) as error:
        kind = type(error).__name__
        return f"Postgres can't be asked ({kind}): check DATABASE_URL and that it runs."


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Any]:
    connection = await postgres.connect(url, timeout=_WITHIN_S, command_timeout=_WITHIN_S)
    try:
        yield connection
    finally:
        await connection.close()


async def _described(connection: Any, facts: Facts) -> Facts:
    """Add what may be hidden from this user, or not be there yet."""
    try:
        applied = frozenset([row["version"] async for row in _queries.applied(connection)])
        roles = [row["role"] async for row in _queries.roles(connection, roles=list(ROLES))]
        excess = [
            f"{row['role']} has {row['excess']}"
            async for row in _queries.excess(connection, roles=list(ROLES))
        ]
        nodes = [Node(row["node"], row["eof_at"]) async for row in _queries.nodes(connection)]
        backup_at = await _queries.backup_at(connection)
    except asyncpg.UndefinedTableError:
        return evolve(facts, applied=frozenset())
    except asyncpg.InsufficientPrivilegeError:
        return facts
    return evolve(
        facts,
        applied=applied,
        roles=frozenset(roles),
        excess=tuple(excess),
        nodes=tuple(nodes),
        backup_at=backup_at,
    )


def judge(facts: Facts, *, deciders: int, known: frozenset[str], now: datetime) -> list[Finding]:
    """Judge the server, its schema and its roles, for so many processes of authz."""
    server: list[Finding] = []
    if facts.number < OLDEST:
        server.append(fail(CHECK, f"PostgreSQL {facts.version} is too old: upgrade it to 15 or newer."))
    if facts.is_standby:
        server.append(fail(CHECK, "Postgres is a standby: point DATABASE_URL at its primary."))
    needed, left = deciders * OF_A_DECIDER + OF_THE_REST, facts.most_connections - facts.foreign
    if needed > left:
        sentence = (
            f"Postgres has {left} connections for the gateway, which may need {needed}: "
            "raise max_connections, or use it for fewer others."
        )
        server.append(fail(CHECK, sentence))
    fine = f"PostgreSQL {facts.version} has {left} connections for the {needed} that may be needed."
    return [
        *summed(CHECK, server, fine),
        *_of_schema(facts, known),
        *_of_roles(facts),
        *_of_backup(facts, now),
    ]


def _of_schema(facts: Facts, known: frozenset[str]) -> list[Finding]:
    if facts.applied is None:
        return [warn("migrations", "They are hidden from this user: run doctor as the tables' owner.")]
    if missing := sorted(known - facts.applied):
        sentence = (
            f"{len(missing)} migrations are missing, from {missing[0]} on: run `neuronetz-gateway migrate`."
        )
        return [fail("migrations", sentence)]
    if newer := sorted(facts.applied - known):
        sentence = (
            f"The database is newer than this program ({newer[-1]}): bring the program up to date, "
            "which works with it for one release only."
        )
        return [warn("migrations", sentence)]
    return [ok("migrations", f"All {len(known)} are applied.")]


def _of_roles(facts: Facts) -> list[Finding]:
    if not facts.applied:
        return []
    found = [
        fail("roles", f"Postgres has no role {role}: run `neuronetz-gateway migrate`.")
        for role in ROLES
        if role not in facts.roles
    ]
    found += [
        fail(
            "roles", f"In Postgres {excess}, which no migration gives: take it back by REVOKE or ALTER ROLE."
        )
        for excess in facts.excess
    ]
    return summed("roles", found, f"{', '.join(ROLES)} can't rewrite what was billed.")


def _of_backup(facts: Facts, now: datetime) -> list[Finding]:
    if not facts.applied:
        return []
    todo = "run `neuronetz-gateway backup --to DIR` each day."
    if facts.backup_at is None:
        return [warn("backup", f"There has never been one: {todo}")]
    age = now - facts.backup_at
    written = f"The last one is of {facts.backup_at:%Y-%m-%d %H:%M}Z"
    return [warn("backup", f"{written}: {todo}") if age > STALE_BACKUP else ok("backup", f"{written}.")]

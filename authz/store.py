"""Postgres, as authz sees it: typed answers in, one kind of failure out."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import msgspec

import sql
from authz import postgres, snapshot
from authz.errors import StoreUnavailable
from authz.limiter.admission import Reading
from authz.types import SAFE_POLICY, AnswerSums, Identity, Limits, Policy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import date, datetime
    from uuid import UUID

    from authz.limiter.admission import Lost
    from authz.snapshot import Snapshot

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that Postgres ends while a command is being cancelled
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up
    asyncpg.InsufficientResourcesError,  # too many connections, no memory, no disk
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
)
"""The exceptions of asyncpg when the server, not the query, is at fault."""

LACKING: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
)
"""The exceptions of asyncpg when the schema lacks what a query names."""

OLDER: Final = "The database is older than this program: run `neuronetz-gateway migrate` first."

ACQUIRE_S = 1.0

HANDLES: Final = 1_000
"""Handles that Postgres is asked for at once."""

AUTHZ_ROLE: Final = "gateway_authz"
METERING_ROLE: Final = "gateway_metering"
ADMIN_ROLE: Final = "gateway_admin"
AUDITOR_ROLE: Final = "gateway_auditor"
"""What each program may do in Postgres; sql/migrations grants it, and no role rewrites what was billed."""

_queries = sql.load("authz")
_aliases = sql.load("aliases")


async def act_as(connection: Any, role: str) -> None:
    """Take a role for as long as a connection lives.

    By a statement: a pooler such as PgBouncer refuses a connection that names a role when it starts.
    Raises StoreUnavailable where there is no such role, so that whoever polls goes on until there is.
    """
    try:
        await _queries.act_as(connection, role=role)
    except asyncpg.InvalidParameterValueError as error:
        sentence = f"Postgres has no role {role}: run `neuronetz-gateway migrate` first."
        raise StoreUnavailable(sentence) from error


async def plan_each_time(connection: Any) -> None:
    """Have every query planned for its own parameters: only then no more days of the ledger are locked
    than its range of ids has.
    """
    await _queries.plan_each_time(connection)


async def prepare(connection: Any, role: str) -> None:
    """Make a new connection ours: its role, and how it plans. Raises StoreUnavailable without the role."""
    await act_as(connection, role)
    await plan_each_time(connection)


async def keep(_: Any) -> None:
    """Leave a connection that returns to the pool as it was made ours: nothing that borrows one changes it.

    What asyncpg does by default would undo that, and ask Postgres once more for each query.
    """


class Store:
    """A pool of connections; every method raises StoreUnavailable when Postgres can't be asked."""

    def __init__(self, url: str, *, role: str, connections: int = 5) -> None:
        self._url = url
        self._role = role
        self._connections = connections
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def close(self) -> None:
        """Close every connection."""
        if self._pool is not None:
            await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
        """Borrow a connection; the first caller opens the pool, so a start needs no Postgres."""
        try:
            pool = self._pool or await self._open()
            async with pool.acquire(timeout=ACQUIRE_S) as connection:
                try:
                    yield connection
                except asyncio.CancelledError:
                    connection.terminate()  # its release would wait for the answer that came too late
                    raise
        except LACKING as error:
            raise StoreUnavailable(OLDER) from error
        except UNREACHABLE as error:
            sentence = (
                f"Postgres can't be asked ({type(error).__name__}): check DATABASE_URL and that it runs."
            )
            raise StoreUnavailable(sentence) from error

    async def _open(self) -> asyncpg.Pool[asyncpg.Record]:
        connect: Any = postgres.connect
        pool: asyncpg.Pool[asyncpg.Record] = await asyncpg.create_pool(
            self._url,
            connect=connect,
            min_size=0,
            max_size=self._connections,
            command_timeout=5,
            timeout=ACQUIRE_S,
            init=partial(prepare, role=self._role),
            reset=keep,
        )
        if self._pool is not None:  # another caller was faster
            await pool.close()
            return self._pool
        self._pool = pool
        return pool

    async def identity(self, lookup: str) -> Identity | None:
        """Return the identity that a secret's public handle names; None if it is unknown."""
        async with self.connection() as connection:
            row = await _queries.find_identity(connection, lookup=lookup)
        return None if row is None else _identity(row)

    async def handles(self, *, since: datetime) -> AsyncIterator[tuple[datetime, list[str]]]:
        """Yield the public handles of secrets made since a moment, in pages with when they were read."""
        after = ""
        async with self.connection() as connection:
            while True:
                page = _queries.handles(connection, since=since, after=after, most=HANDLES)
                if rows := [row async for row in page]:
                    yield rows[0]["read_at"], [row["lookup"] for row in rows]
                if len(rows) < HANDLES:
                    return
                since, after = rows[-1]["created_at"], rows[-1]["lookup"]

    async def aliases(self) -> list[tuple[UUID | None, str, str]]:
        """Return the names by which clients ask for models: tenant or None for all, name, model."""
        async with self.connection() as connection:
            return [tuple(row.values()) async for row in _aliases.list_aliases(connection)]

    async def own_use(
        self, tenant: UUID, key: UUID, *, days: Sequence[date], most: int
    ) -> list[tuple[date, str, int, int, int]]:
        """Return what a key has used: day, model, requests, input and output tokens; the newest first."""
        async with self.connection() as connection:
            found = _queries.own_use(connection, tenant=tenant, key=key, days=days, most=most)
            return [tuple(row.values()) async for row in found]

    async def learned(self, *, most: int | None = None) -> list[tuple[UUID, str, AnswerSums]]:
        """Return what the answers of tenants have shown of models: tenant, canonical name, sums."""
        async with self.connection() as connection:
            return [
                (row["tenant_id"], row["model"], AnswerSums(*list(row.values())[2:]))
                async for row in _queries.learned_of_tenants(connection, most=most)
            ]

    async def probe(self) -> None:
        """Ask what a decision asks: a schema that lacks some of it is found, not by the first client."""
        await self.identity("")
        await self.aliases()
        await self.learned(most=0)

    async def nodes(self) -> frozenset[UUID]:
        """Return the nodes that metering reads a journal of."""
        async with self.connection() as connection:
            return frozenset([row["node"] async for row in _queries.known_nodes(connection)])

    async def tenants(self) -> tuple[UUID, ...]:
        """Return every tenant."""
        async with self.connection() as connection:
            return tuple([row["id"] async for row in _queries.tenant_ids(connection)])

    async def names(self) -> dict[str, str]:
        """Return the names of tenants and keys, by id."""
        async with self.connection() as connection:
            return {str(row["id"]): row["name"] async for row in _queries.names(connection)}

    @asynccontextmanager
    async def snapshot(
        self, tenant: UUID, *, lost: Lost, safe_at: datetime, read_at: datetime
    ) -> AsyncIterator[Snapshot | None]:
        """Open one snapshot of what a rebuild needs; None while some journal may still hold surprises."""
        async with (
            self.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            is_read = await _queries.are_nodes_read(connection, since=safe_at)
            version = await _queries.tenant_version(connection, tenant=tenant) if is_read else None
            if version is None:
                yield None
                return
            reading = Reading(tenant, mark=lost.mark, read_at=read_at, tenant_version=version)
            async with snapshot.opened(connection, reading) as found:
                yield found

    async def disable(self, lookup: str) -> None:
        """Disable the key of a secret, since its stored hash does not fit its stored tag."""
        async with self.connection() as connection:
            await _queries.disable_key(connection, lookup=lookup)

    async def outbid_versions(self, tenant: UUID, key: UUID, *, known: tuple[int, int]) -> bool:
        """Raise versions of a tenant and a key beyond these of Redis; False if they are not behind."""
        of_tenant, of_key = known
        async with self.connection() as connection:
            is_raised: bool = await _queries.outbid_versions(
                connection, tenant=tenant, tenant_known=of_tenant, key=key, key_known=of_key
            )
        return is_raised

    async def unpublished_versions(self) -> tuple[tuple[UUID, UUID | None, int], ...]:
        """Return the versions of tenants (key None) and keys that Redis may not know yet."""
        async with self.connection() as connection:
            rows = [row async for row in _queries.unpublished_versions(connection)]
        return tuple((row["tenant_id"], row["key_id"], row["version"]) for row in rows)

    async def mark_published(self, tenant: UUID, key: UUID | None, version: int) -> None:
        """Note that Redis knows a version."""
        async with self.connection() as connection:
            if key is None:
                await _queries.mark_tenant_published(connection, tenant=tenant, version=version)
            else:
                await _queries.mark_key_published(connection, key=key, version=version)


def _limits(row: asyncpg.Record, prefix: str = "") -> Limits:
    return Limits(
        requests_per_minute=row[f"{prefix}requests_per_minute"],
        tokens_per_minute=row[f"{prefix}tokens_per_minute"],
        concurrency=row[f"{prefix}concurrency"],
        tokens_per_day=row[f"{prefix}tokens_per_day"],
        tokens_per_month=row[f"{prefix}tokens_per_month"],
        tokens_total=row[f"{prefix}tokens_total"],
    )


def _identity(row: asyncpg.Record) -> Identity:
    of_key, of_tenant = (msgspec.json.decode(row[name], type=Policy) for name in ("key_policy", "policy"))
    return Identity(
        lookup=row["lookup"],
        tag=row["tag"],
        pepper_id=row["pepper_id"],
        hash=row["hash"],
        secret_expires_at=row["secret_expires_at"],
        tenant=row["tenant_id"],
        tenant_name=row["tenant_name"],
        tenant_state=row["tenant_state"],
        tenant_version=row["tenant_version"],
        tenant_limits=_limits(row),
        timezone=row["timezone"],
        key=row["key_id"],
        key_name=row["key_name"],
        key_state=row["key_state"],
        key_version=row["key_version"],
        key_limits=_limits(row, "key_"),
        models=None if row["models"] is None else tuple(row["models"]),
        cidrs=None if row["cidrs"] is None else tuple(row["cidrs"]),
        expires_at=row["expires_at"],
        max_output=row["max_output"],
        log_prompts_s=row["log_prompts_s"],
        policy=of_key.over(of_tenant).over(SAFE_POLICY),
    )

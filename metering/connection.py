"""One connection to Postgres: named queries in, one kind of failure out."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import asyncpg
from attrs import define

from authz import postgres
from authz.errors import GatewayError, StoreUnavailable
from authz.store import LACKING, METERING_ROLE, OLDER, act_as, plan_each_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TIMEOUT_S: Final = 60

UNREACHABLE: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # A connection that Postgres ends while a command is being cancelled.
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What asyncpg raises when it is not the rows that are at fault."""

REFUSED: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.CardinalityViolationError,  # rows that contradict each other: one key of two tenants
)
"""What it raises when some rows are: others can be written without them."""


class RowsRefusedError(GatewayError):
    """Postgres takes everything but these rows: one of them breaks a rule of the schema."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except REFUSED as error:
        raise RowsRefusedError(f"Postgres refused rows: {error}.") from error
    except LACKING as error:
        raise StoreUnavailable(OLDER) from error
    except UNREACHABLE as error:
        raise StoreUnavailable(f"Postgres cannot be asked: {error!r}.") from error


@define
class Connection:
    """Every method raises StoreUnavailable; those that write raise RowsRefusedError too."""

    _queries: ClassVar[Any]
    """The named queries of the class, out of one file of sql/queries."""

    _role: ClassVar[str | None] = METERING_ROLE
    """As which role it acts; None is the user of the URL."""

    _connection: asyncpg.Connection[asyncpg.Record]

    @classmethod
    async def connect(cls, url: str) -> Self:
        """Connect; the URL is libpq's."""
        with _translated():
            connection = await postgres.connect(url, command_timeout=TIMEOUT_S, timeout=TIMEOUT_S)
            with ExitStack() as unless_ready:
                unless_ready.callback(connection.terminate)
                if cls._role:
                    await act_as(connection, cls._role)
                await plan_each_time(connection)
                unless_ready.pop_all()
            return cls(connection)

    @classmethod
    def beside(cls, other: Connection) -> Self:
        """Use the connection of another store: what both do in a transaction happens at once."""
        return cls(other._connection)

    @property
    def is_closed(self) -> bool:
        """Return whether either side has closed the connection."""
        return self._connection.is_closed()

    async def close(self) -> None:
        """Close the connection, or drop it if Postgres does not answer."""
        try:
            with _translated():
                await self._connection.close(timeout=1)
        except StoreUnavailable:
            self._connection.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit everything done inside at once, or nothing if anything raises."""
        with _translated():
            async with self._connection.transaction():
                yield

    async def _run(self, statement: str) -> None:
        """Run a statement that a query has written."""
        with _translated():
            await self._connection.execute(statement)

    async def _rows(self, query: str, **parameters: object) -> list[asyncpg.Record]:
        with _translated():
            ask: Any = getattr(self._queries, query)
            return [row async for row in ask(self._connection, **parameters)]

    async def _one(self, query: str, **parameters: object) -> Any:
        with _translated():
            return await getattr(self._queries, query)(self._connection, **parameters)

    async def _do(self, query: str, **parameters: object) -> None:
        with _translated():
            await getattr(self._queries, query)(self._connection, **parameters)

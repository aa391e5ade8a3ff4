"""Connections to Postgres where its URL lists several hosts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from attrs import frozen

from authz import postgres
from authz.store import ADMIN_ROLE, UNREACHABLE, Store

HOUR_S = 3600.0
"""Longer than a test may take: whoever waits for it fails."""


@frozen
class Hosts:
    """Ports of this machine: of Postgres, of a host that never says a word, and one where nothing listens."""

    well: int
    silent: int
    closed: int
    database: str

    def url(self, *ports: int) -> str:
        """List hosts."""
        listed = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"postgresql://postgres@{listed}/{self.database}?target_session_attrs=primary"


@pytest.fixture
async def hosts(stores: Path, database: str) -> AsyncIterator[Hosts]:
    """Postgres by TCP, beside others."""

    async def to_postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, asks = await asyncio.open_unix_connection(stores / "run" / ".s.PGSQL.5432")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_copy(reader, asks))
            tasks.create_task(_copy(answers, writer))

    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        closed_port: int = closed.getsockname()[1]
        closed.close()
        async with await asyncio.start_server(to_postgres, "127.0.0.1", 0) as server:
            well: int = server.sockets[0].getsockname()[1]
            name = database.partition("?")[0].rpartition("/")[2]
            yield Hosts(well, silent.getsockname()[1], closed_port, name)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def test_a_host_that_is_gone_delays_nothing(hosts: Hosts) -> None:
    """Wherever it stands in the list."""
    for ports in ((hosts.silent, hosts.well), (hosts.well, hosts.silent), (hosts.closed, hosts.well)):
        connection = await postgres.connect(hosts.url(*ports), timeout=HOUR_S)
        assert 1 == await connection.fetchval("SELECT 1")
        await connection.close()


async def test_the_store_asks_all_hosts(hosts: Hosts) -> None:
    """Within the time that a decision has."""
    async with AsyncExitStack() as stack:
        store = Store(hosts.url(hosts.silent, hosts.well), role=ADMIN_ROLE)
        stack.push_async_callback(store.close)
        assert () == await store.tenants()


async def test_no_host_is_an_error(hosts: Hosts) -> None:
    """One of those that mean that Postgres can't be asked."""
    with pytest.raises(UNREACHABLE):
        await postgres.connect(hosts.url(hosts.closed, hosts.closed), timeout=HOUR_S)
    with pytest.raises(UNREACHABLE):
        await postgres.connect(hosts.url(hosts.silent, hosts.closed), timeout=0.1)


async def test_who_gives_up_leaves_nothing_behind(hosts: Hosts) -> None:
    """A connection that is being made ends with the task that wanted it."""
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(postgres.connect(hosts.url(hosts.silent, hosts.silent), timeout=HOUR_S), 0.1)
    for task in asyncio.all_tasks() - before:
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_kernel_ends_what_is_silent(hosts: Hosts) -> None:
    """Long before a query would: TCP alone retries for a quarter of an hour."""
    connection = await postgres.connect(hosts.url(hosts.well))
    endpoint = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    ends_after_ms = endpoint.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert (1000 * postgres.SILENT_S, 1) == (
        ends_after_ms,
        endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    )
    await connection.close()

"""The witnesses of what happened: the backend, the journal and the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from attrs import frozen

from tests.gateway import Gateway

SETTLED_WITHIN_S: Final = 20
POLLED: Final = {"/api/version", "/api/tags", "/api/ps"}
"""The requests of authz and Caddy themselves to a backend, always by GET and without a query."""

ROWS: Final = (
    "SELECT l.*, c.address FROM ledger AS l LEFT JOIN client_addresses AS c ON c.id = l.address_id"
    " WHERE l.request_id = ANY($1)"
)
IS_READ: Final = (
    "SELECT coalesce(bool_or(position >= $1), false) FROM journal_files WHERE NOT is_finished AND node = $2"
)


class Hit(msgspec.Struct):
    """A request as it arrived at the backend."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: str

    @property
    def is_poll(self) -> bool:
        """Return whether the gateway asked on its own behalf."""
        return self.method == "GET" and self.target in POLLED

    def names(self) -> set[str]:
        """The names of its headers, lower case."""
        return {name.lower() for name, _ in self.headers}


@frozen
class Row:
    """The bill of a request."""

    outcome: str
    reason: str | None
    tenant: UUID | None
    key: UUID | None
    ip: str
    usage_source: str
    tokens: int


@frozen
class Witness:
    """The view of a gateway's own parts."""

    _backend: httpx.Client
    _database_url: str
    _journal: Path

    @classmethod
    @contextmanager
    def of(cls, gateway: Gateway, journal: Path | None = None) -> Iterator[Witness]:
        """The witness of a gateway, by its own journal or that of another node."""
        own = gateway.stack.state / "journal" / "journal.log"
        with httpx.Client(base_url=gateway.backend_url) as backend:
            yield cls(backend, gateway.database_url, journal or own)

    def forget(self) -> None:
        """Let the backend forget its hits."""
        self._backend.delete("/test/tally").raise_for_status()

    def taken(self) -> list[Hit]:
        """Return the hits, and let the backend forget them."""
        if found := self.hits():
            self.forget()
        return found

    def hits(self) -> list[Hit]:
        """Return the requests that reached the backend through the gateway."""
        answer = self._backend.get("/test/hits").raise_for_status()
        return [hit for hit in msgspec.json.decode(answer.content, type=list[Hit]) if not hit.is_poll]

    def settled(self, ids: Iterable[str]) -> dict[str, Row]:
        """Return the bill of each request, once metering has settled them all.

        A refusal that is only counted has no row in the ledger: its record says what it was, and it is free.
        """
        wanted = list(ids)
        records = self._records(wanted)
        node = UUID(self._decoded()[0].gateway.node)
        read_bytes = self._journal.stat().st_size
        rows = asyncio.run(_ledger(self._database_url, wanted, node=node, read_bytes=read_bytes))
        missing = [records[each] for each in wanted if each not in rows and records[each].is_billable]
        assert not missing, missing
        return {each: rows.get(each) or records[each].row() for each in wanted}

    def lines(self) -> dict[str, list[str]]:
        """The kinds of the journal's lines about each request, in order."""
        found: dict[str, list[str]] = {}
        for line in self._decoded():
            if line.gateway.id:
                found.setdefault(line.gateway.id, []).append(line.msg)
        return found

    def _decoded(self) -> list[_Line]:
        *lines, _torn = self._journal.read_bytes().split(b"\n")
        return [msgspec.json.decode(each, type=_Line) for each in lines]

    def _records(self, ids: Sequence[str]) -> dict[str, _Record]:
        """The journal's record of each request, once all are written."""
        for _ in range(SETTLED_WITHIN_S * 50):
            lines = self._decoded()
            found = {each.gateway.id: each.gateway for each in lines if each.msg not in {"boot", "open"}}
            if found.keys() >= set(ids):
                return {each: found[each] for each in ids}
            time.sleep(0.02)
        pytest.fail(f"of {len(ids)} requests not all had their record within {SETTLED_WITHIN_S} s")


class _Record(msgspec.Struct):
    """The record of a request."""

    id: str = ""
    node: str = ""
    ip: str = ""
    tenant: str | None = None
    outcome: str = ""
    reason: str | None = None
    reserved: object = None

    @property
    def is_billable(self) -> bool:
        """Return whether a row in the ledger is due."""
        is_served = self.tenant is not None and self.outcome not in {"denied", "refused", "authz_failed"}
        return self.reserved is not None or is_served

    def row(self) -> Row:
        """Return the bill of a request that is only counted: nothing."""
        return Row(self.outcome, self.reason, None, None, self.ip, "none", 0)


class _Line(msgspec.Struct):
    msg: str
    gateway: _Record


async def _ledger(database_url: str, ids: Sequence[str], *, node: UUID, read_bytes: int) -> dict[str, Row]:
    """The ledger's rows of requests, once metering has committed so much of the journal."""
    connection = await asyncpg.connect(database_url)
    try:
        for _ in range(SETTLED_WITHIN_S * 50):
            if await connection.fetchval(IS_READ, read_bytes, node):
                rows = await connection.fetch(ROWS, [UUID(each) for each in ids])
                assert len({row["request_id"] for row in rows}) == len(rows)
                return {str(row["request_id"]): _row(row) for row in rows}
            await connection.execute("SELECT pg_sleep(0.02)")
    finally:
        await connection.close()
    pytest.fail(f"the journal was not read within {SETTLED_WITHIN_S} s")


def _row(row: Any) -> Row:
    return Row(
        outcome=row["outcome"],
        reason=row["reason"],
        tenant=row["tenant_id"],
        key=row["key_id"],
        ip=row["address"],
        usage_source=row["usage_source"],
        tokens=row["input_tokens"] + row["output_tokens"],
    )

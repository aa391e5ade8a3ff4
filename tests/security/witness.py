"""Who can tell what really happened: the backend, the journal and the ledger."""

from __future__ import annotations

import asyncio
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
"""What authz and Caddy ask a backend by themselves, always by GET and without a query."""

ROWS: Final = "SELECT * FROM ledger WHERE request_id = ANY($1)"


class Hit(msgspec.Struct):
    """A request as it arrived at the backend."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: str

    @property
    def is_poll(self) -> bool:
        """Whether the gateway asked on its own behalf."""
        return self.method == "GET" and self.target in POLLED

    def names(self) -> set[str]:
        """The names of its headers, lower case."""
        return {name.lower() for name, _ in self.headers}


@frozen
class Row:
    """What a request was billed."""

    outcome: str
    reason: str | None
    tenant: UUID | None
    key: UUID | None
    ip: str
    usage_source: str
    tokens: int


@frozen
class Witness:
    """What a gateway's own parts say of it."""

    _backend: httpx.Client
    _database_url: str
    _journal: Path

    @classmethod
    @contextmanager
    def of(cls, gateway: Gateway) -> Iterator[Witness]:
        """The witness of a gateway."""
        journal = gateway.stack.state / "journal" / "journal.log"
        with httpx.Client(base_url=gateway.demo_url) as backend:
            yield cls(backend, gateway.database_url, journal)

    def forget(self) -> None:
        """Let the backend forget its hits."""
        self._backend.delete("/demo/tally").raise_for_status()

    def hits(self) -> list[Hit]:
        """What reached the backend through the gateway."""
        said = self._backend.get("/demo/hits").raise_for_status()
        return [hit for hit in msgspec.json.decode(said.content, type=list[Hit]) if not hit.is_poll]

    def settled(self, ids: Iterable[str]) -> dict[str, Row]:
        """The ledger's one row of each request, once metering has settled them all."""
        return asyncio.run(_settled(self._database_url, [UUID(each) for each in ids]))

    def lines(self, request_id: str) -> list[str]:
        """The kinds of the journal's lines about a request, in order."""
        needle = f'"id":"{request_id}"'.encode()
        found = [each for each in self._journal.read_bytes().split(b"\n") if needle in each]
        return [msgspec.json.decode(each)["msg"] for each in found]


async def _settled(database_url: str, ids: Sequence[UUID]) -> dict[str, Row]:
    connection = await asyncpg.connect(database_url)
    try:
        for _ in range(SETTLED_WITHIN_S * 50):
            rows = await connection.fetch(ROWS, ids)
            if len(rows) >= len(ids):
                assert len(ids) == len(rows)
                return {str(row["request_id"]): _row(row) for row in rows}
            await connection.execute("SELECT pg_sleep(0.02)")
    finally:
        await connection.close()
    pytest.fail(f"of {len(ids)} requests {len(rows)} were settled within {SETTLED_WITHIN_S} s")


def _row(row: Any) -> Row:
    return Row(
        outcome=row["outcome"],
        reason=row["reason"],
        tenant=row["tenant_id"],
        key=row["key_id"],
        ip=row["ip"],
        usage_source=row["usage_source"],
        tokens=row["input_tokens"] + row["output_tokens"],
    )

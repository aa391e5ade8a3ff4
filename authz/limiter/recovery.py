"""What a rebuild sends, a batch at a time, and how what is left of an earlier run is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from authz.limiter import keyspace, wire
from authz.limiter.connection import answer

if TYPE_CHECKING:
    from uuid import UUID

    from authz.limiter.admission import Batch, Reading
    from authz.limiter.connection import Argument, Link

SCANNED: Final = 500
"""Fields that one step of a scan looks at."""


def question(
    reading: Reading, batch: Batch, *, run: str, end_after_us: int
) -> tuple[tuple[str, ...], list[Argument]]:
    """Return the keys of rebuild.lua and its four lists; a slot ends so long after its deadline."""
    tenant = reading.tenant
    shared = keyspace.of_settlement(tenant, run)
    owners = dict.fromkeys(row.key for row in batch.open_requests)
    place = {key: number for number, key in enumerate(owners, start=len(shared) + 1)}
    arguments: list[Argument] = [len(batch.key_versions) + 1]
    arguments += (keyspace.version(None), reading.tenant_version)
    for key, version in batch.key_versions:
        arguments += (keyspace.version(key), version)
    arguments += (len(batch.closed), *map(str, batch.closed))
    arguments += (len(batch.totals), *wire.totals(tenant, batch.totals))
    arguments.append(len(batch.open_requests))
    for row in batch.open_requests:
        end = wire.us(row.deadline) + end_after_us
        arguments += (str(row.request_id), place[row.key], wire.pack(row), end)
    return (*shared, *(keyspace.slots(tenant, run, key) for key in owners)), arguments


async def forget(link: Link, tenant: UUID, run: str) -> None:
    """Remove slots, reservations and deadlines of an earlier run. Raises LimiterUnavailable."""
    held, cursor = keyspace.held(tenant, run), b"0"
    while True:
        cursor, found = await answer(link.send("HSCAN", held, cursor, "COUNT", SCANNED))
        pairs = zip(found[::2], found[1::2], strict=True)
        owners = {wire.owner(packed) for name, packed in pairs if not name.startswith(b"h:")}
        if owners:
            await answer(link.send("UNLINK", *(keyspace.slots(tenant, run, key) for key in owners)))
        if cursor == b"0":
            break
    names = keyspace.slots(tenant, run), keyspace.opened(tenant, run), held
    await answer(link.send("UNLINK", *names))

"""A ledger of any size, chained by the database's own triggers, and what its owner alters in it by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
from attrs import frozen

DAYS: Final = 3
"""Of the rows: so many the links of one moment may have and still be of about the time of their rows."""

NODE: Final = "7c9e6679-7425-40de-944b-e07fc1f90ae7"

_COMMIT_EVERY: Final = 50
"""Links."""

ROWS: Final = """
    INSERT INTO ledger (
        request_id, entry, at, node, boot, seq, lookup, tenant_id, key_id, method, path, model, backend,
        stream, outcome, status, day, month, input_tokens, output_tokens, usage_source, duration_ms
    )
    SELECT
        (lpad(to_hex(ms), 12, '0') || '70008000' || lpad(to_hex(i), 12, '0'))::uuid,
        0, clock_timestamp(), $6, $6, i, 'nz_3bVSxmba',
        ('00000000-0000-4000-8000-' || lpad(to_hex(i % 20), 12, '0'))::uuid,
        ('00000000-0000-4000-8001-' || lpad(to_hex(i % 100), 12, '0'))::uuid,
        'POST', '/v1/chat/completions', 'model-' || i % 7 || ':latest', 'local', true, 'completed', 200,
        day, date_trunc('month', day)::date, 78 + i % 500, i % 900, 'reported', 1210 + i % 999
    FROM (
        SELECT i, ms, (to_timestamp(ms / 1000.0) AT TIME ZONE 'UTC')::date AS day
        FROM (
            SELECT i, $3::bigint + i * $4::bigint / $5::bigint AS ms
            FROM generate_series($1::bigint, $2::bigint - 1) AS i
        ) AS t
    ) AS g
"""
AUDIT: Final = (
    "INSERT INTO admin_audit (actor, action, new) SELECT 'scale', 'key_limits', '{\"rpm\": 7}'"
    " FROM generate_series(1, $1::int)"
)


ALTER: Final = "UPDATE ledger SET output_tokens = output_tokens + 1 WHERE request_id = $1"
REMOVE: Final = "DELETE FROM ledger WHERE request_id = $1"
RENAME: Final = "UPDATE ledger SET request_id = $2 WHERE request_id = $1"
INVENT: Final = """
    INSERT INTO ledger_{day:%Y%m%d}
    SELECT (jsonb_populate_record(l, jsonb_build_object('request_id', $2::text))).*
    FROM ledger AS l WHERE request_id = $1
"""


@frozen
class GreatLedger:
    """Rows of the last days, in the order of time, of which so many are one link."""

    owner: asyncpg.Connection
    rows: int
    per_link: int
    begins: datetime
    span: timedelta

    @classmethod
    def ending(cls, now: datetime, owner: asyncpg.Connection, *, rows: int, per_link: int) -> GreatLedger:
        """A ledger whose last request was made now."""
        begins = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)
        return cls(owner, rows, per_link, begins, now - begins)

    def moment_ms(self, number: int) -> int:
        """When a row's request was made, in ms since 1970."""
        span_ms = self.span // timedelta(milliseconds=1)
        return int(self.begins.timestamp() * 1000) + number * span_ms // self.rows

    def request(self, number: int, *, variant: int = 0) -> UUID:
        """The id of a row's request; with a variant that of one that there never was, of the same moment."""
        return UUID(f"{self.moment_ms(number):012x}700{variant}8000{number:012x}")

    def day(self, number: int) -> date:
        """The day of a row's request."""
        return datetime.fromtimestamp(self.moment_ms(number) / 1000, UTC).date()

    def link(self, number: int) -> str:
        """The link that has a row."""
        return f"link {number // self.per_link + 1} of the chain {NODE}"

    async def fill(self) -> None:
        """Add all rows, and some of the audit."""
        for day in range(DAYS):
            await self.owner.execute(
                "SELECT ensure_ledger_partition($1)", self.begins.date() + timedelta(days=day)
            )
        statement = await self.owner.prepare(ROWS)
        begins_ms, span_ms = self.moment_ms(0), self.span // timedelta(milliseconds=1)
        step = self.per_link * _COMMIT_EVERY
        for start in range(0, self.rows, step):
            async with self.owner.transaction():
                for first in range(start, min(start + step, self.rows), self.per_link):
                    last = min(first + self.per_link, self.rows)
                    await statement.fetch(first, last, begins_ms, span_ms, self.rows, NODE)
        await self.owner.execute(AUDIT, max(1, self.rows // 10_000))
        await self.owner.execute("VACUUM ANALYZE")

    async def tamper(self) -> set[str]:
        """Alter, remove, swap and invent rows as only the owner can; returns how they must be named."""
        altered, removed, swapped, invented = (
            self.rows * tenth // 10 + self.per_link // 3 for tenth in (3, 5, 7, 8)
        )
        other = swapped + self.per_link
        passing, spare = self.request(swapped, variant=1), self.request(invented, variant=1)
        await self.owner.execute(ALTER, self.request(altered))
        await self.owner.execute(REMOVE, self.request(removed))
        await self.owner.execute(RENAME, self.request(swapped), passing)
        await self.owner.execute(RENAME, self.request(other), self.request(swapped))
        await self.owner.execute(RENAME, passing, self.request(other))
        invent = INVENT.format(day=self.day(invented))
        await self.owner.execute(invent, self.request(invented), str(spare))
        return {
            f"Request {self.request(number)} was altered: it is not as {self.link(number)} has it."
            for number in (altered, swapped, other)
        } | {
            f"Request {self.request(removed)} is missing: it is in {self.link(removed)}.",
            f"Request {spare} is in no chain: it was added past the rules of the database.",
        }

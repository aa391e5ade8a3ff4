"""Requests in Postgres: open ones, the ledger, its sums, and the outbox to Redis."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define

import sql
from authz.types import Closed, Total
from metering.connection import Connection
from metering.days import by_day, floor
from metering.outbox import Unpublished
from metering.refusals import KEPT_PER_MINUTE
from metering.rows import Charged, OpenRow, Owner, TenantTotal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from collections.abc import Sequence as Many
    from datetime import date, datetime
    from uuid import UUID

    import asyncpg

    from metering.outbox import OutboxRow
    from metering.rows import Increase, KeyMinute, LedgerRow, Refused, Use


@define
class LedgerStore(Connection):
    """Every method raises StoreUnavailable; those that write raise RowsRefusedError too."""

    _queries: ClassVar[Any] = sql.load("ledger")

    async def owners(self, lookups: Collection[str]) -> dict[str, Owner]:
        """Return the owners of handles; unknown ones are left out."""
        if not lookups:
            return {}
        rows = await self._rows("owners", lookups=list(lookups))
        return {row["lookup"]: Owner(row["tenant_id"], row["key_id"]) for row in rows}

    async def ensure_partition(self, day: date) -> None:
        """Make the ledger's partition of a day if there is none."""
        await self._one("ensure_partition", day=day)

    async def add_open(self, rows: Collection[OpenRow]) -> None:
        """Remember requests that have begun, unless the ledger knows their end already."""
        ended = await self.settled(row.request_id for row in rows)
        begun = [row for row in rows if row.request_id not in ended]
        if not begun:
            return
        await self._do(
            "add_open",
            request_ids=[row.request_id for row in begun],
            nodes=[row.node for row in begun],
            boots=[row.boot for row in begun],
            tenant_ids=[row.owner.tenant for row in begun],
            key_ids=[row.owner.key for row in begun],
            reserved_inputs=[row.reserved_input for row in begun],
            reserved_outputs=[row.reserved_output for row in begun],
            days=[row.day for row in begun],
            months=[row.month for row in begun],
            deadlines=[row.deadline for row in begun],
            ips=[row.ip for row in begun],
            paths=[row.path for row in begun],
            models=[row.model for row in begun],
            backends=[row.backend for row in begun],
            streams=[row.stream for row in begun],
            ceiling_inputs=[row.ceiling_input for row in begun],
            ceiling_outputs=[row.ceiling_output for row in begun],
            prompt_bytes=[row.prompt_bytes for row in begun],
            images=[row.images for row in begun],
            queued=[row.queued for row in begun],
            models_asked=[row.model_asked for row in begun],
            trace_ids=[row.trace_id for row in begun],
            end_users=[row.end_user for row in begun],
        )

    async def settled(self, ids: Iterable[UUID]) -> set[UUID]:
        """Return those of these requests that the ledger has."""
        return {row["request_id"] for row in await self._day_by_day("settled", ids)}

    async def end_open(self, ids: Collection[UUID]) -> None:
        """Forget requests that have ended."""
        if not ids:
            return
        await self._do("end_open", ids=list(ids))

    async def take_dead_boots(self, node: UUID, boot: UUID) -> list[OpenRow]:
        """Take out the open requests of boots before this one."""
        return [_open_row(row) for row in await self._rows("take_dead_boots", node=node, boot=boot)]

    async def take_overdue(self, node: UUID, before: datetime) -> list[OpenRow]:
        """Take out the open requests whose deadline is before a moment."""
        return [_open_row(row) for row in await self._rows("take_overdue", node=node, before=before)]

    async def add_ledger(self, rows: Many[LedgerRow]) -> set[UUID]:
        """Add rows of one entry number each request; answers the ids of those that were not there."""
        if not rows:
            return set()
        return {row["request_id"] for row in await self._rows("add_ledger", **_columns(rows))}

    async def orphans_charged(self, ids: Collection[UUID]) -> dict[UUID, Charged]:
        """Return those of these requests that were charged as orphans and not adjusted yet."""
        rows = await self._day_by_day("orphans_charged", ids)
        if not rows:
            return {}
        await self._rows("lock_credits", tenants=list({row["tenant_id"] for row in rows}))
        found = await self._day_by_day("credited", [row["request_id"] for row in rows])
        credited = {row["request_id"]: row["tokens"] for row in found}
        return {
            row["request_id"]: Charged(
                row["request_id"],
                Owner(row["tenant_id"], row["key_id"]),
                row["day"],
                row["month"],
                row["input_tokens"],
                row["output_tokens"],
                credited.get(row["request_id"], 0),
            )
            for row in rows
        }

    async def raise_windows(self, increases: Many[Increase]) -> list[TenantTotal]:
        """Add to windows; answers their new totals."""
        if not increases:
            return []
        rows = await self._rows(
            "raise_windows",
            scopes=[increase.scope for increase in increases],
            periods=[increase.period for increase in increases],
            starts=[increase.start for increase in increases],
            tenants=[increase.tenant for increase in increases],
            used=[increase.tokens for increase in increases],
        )
        return [_tenant_total(row) for row in rows]

    async def unpublished(self, after: OutboxRow, count: int) -> list[Unpublished]:
        """Return a page of the ledger rows that are not published yet, in the order of the outbox."""
        waiting = await self._rows("unpublished", **after._asdict(), count=count)
        entries = await self._day_by_day("entries", {row["request_id"] for row in waiting})
        tokens: Counter[UUID] = Counter()
        windows = {}
        for entry in entries:
            tokens[entry["request_id"]] += entry["tokens"]
            windows[entry["request_id"], entry["entry"]] = entry["day"], entry["month"]
        return [
            Unpublished(
                row["tenant_id"],
                row["entry"],
                Closed(row["request_id"], row["key_id"], tokens[row["request_id"]]),
                *windows.get((row["request_id"], row["entry"]), (None, None)),
            )
            for row in waiting
        ]

    async def every_eof_at(self) -> datetime | None:
        """Return the moment to which every node's journal is known."""
        moment: datetime | None = await self._one("every_eof_at")
        return moment

    async def tenants(self) -> list[UUID]:
        """Return the ids of all tenants."""
        return [row["id"] for row in await self._rows("tenants")]

    async def in_no_journal(self, ids: Iterable[UUID]) -> list[UUID]:
        """Return those of these requests that no line was ever read of."""
        asked = list(ids)
        known = {row["request_id"] for row in await self._rows("open_of", ids=asked)}
        known |= await self.settled(asked)
        return [request_id for request_id in asked if request_id not in known]

    async def publish_again(self, ids: Iterable[UUID]) -> None:
        """Have the settlements of these requests published once more."""
        for day in by_day(ids):
            await self._do("publish_again", ids=day.ids, first=day.first, until=day.until)

    async def partitions(self) -> list[date]:
        """List the days that the ledger has."""
        return [row["day"] for row in await self._rows("partitions")]

    async def close_chain_days(self) -> None:
        """Put the links of days that are over under roots."""
        await self._one("close_chain_days")

    async def forget_people(self, address_days: int | None) -> int:
        """Remove addresses of more than so many days ago, and what is left of erased tenants."""
        removed: int = await self._one("forget_people", days=address_days)
        return removed

    async def oldest_day(self) -> date:
        """Return the oldest day that may still be billed."""
        day: date = await self._one("oldest_day")
        return day

    async def windows(self, scopes: Iterable[UUID], starts: Iterable[date]) -> list[TenantTotal]:
        """Return the use of scopes in the windows that start then."""
        rows = await self._rows("windows", scopes=list(scopes), starts=list(starts))
        return [_tenant_total(row) for row in rows]

    async def published(self, rows: Iterable[OutboxRow]) -> None:
        """Take published ledger rows out of the outbox."""
        tenants, ids, entries = zip(*sorted(rows), strict=True)
        await self._do("published", tenants=tenants, ids=ids, entries=entries)

    async def add_uses(self, uses: Collection[Use]) -> None:
        """Add to the sums by day, key and model."""
        if uses:
            await self._do("add_uses", **_columns(uses))

    async def kept_refusals(self, pairs: Collection[KeyMinute]) -> dict[KeyMinute, set[UUID]]:
        """Count the denied requests that the ledger has of each key and minute, as many as are kept."""
        kept: defaultdict[KeyMinute, set[UUID]] = defaultdict(set)
        days: defaultdict[date, list[KeyMinute]] = defaultdict(list)
        for key, minute in sorted(pairs):
            days[minute.date()].append((key, minute))
        for day, of_day in days.items():
            keys, minutes = zip(*of_day, strict=True)
            first, until = floor(day), floor(day + timedelta(days=1))
            for row in await self._rows(
                "kept_refusals", keys=keys, minutes=minutes, most=KEPT_PER_MINUTE, first=first, until=until
            ):
                kept[row["key_id"], row["minute"]].add(row["request_id"])
        return kept

    async def add_refusals(self, refused: Collection[Refused]) -> None:
        """Add to the counts of refusals."""
        if refused:
            await self._do("add_refusals", **_columns(refused))

    async def _day_by_day(self, query: str, ids: Iterable[UUID]) -> list[asyncpg.Record]:
        """Ask a query about ids once for each of their days."""
        return [
            row
            for day in by_day(ids)
            for row in await self._rows(query, ids=day.ids, first=day.first, until=day.until)
        ]


def _columns(rows: Collection[LedgerRow | Use | Refused]) -> dict[str, Many[object]]:
    """Turn rows into one list for each of their columns, empty where all are NULL: unnest fills it up."""
    first = next(iter(rows))
    nothing = (None,) * len(rows)
    columns = ((() if column == nothing else column) for column in zip(*rows, strict=True))
    return dict(zip(first._fields, columns, strict=True))


def _open_row(row: asyncpg.Record) -> OpenRow:
    return OpenRow(
        row["request_id"],
        row["node"],
        row["boot"],
        Owner(row["tenant_id"], row["key_id"]),
        row["reserved_input"],
        row["reserved_output"],
        row["day"],
        row["month"],
        row["deadline"],
        row["ip"],
        row["path"],
        row["model"],
        row["backend"],
        row["stream"],
        row["ceiling_input"],
        row["ceiling_output"],
        row["prompt_bytes"],
        row["images"],
        row["queued"],
        row["started_at"],
        row["model_asked"],
        row["trace_id"],
        row["end_user"],
    )


def _tenant_total(row: asyncpg.Record) -> TenantTotal:
    total = Total(row["scope_id"], row["period"], row["start"], row["used"], row["version"])
    return TenantTotal(row["tenant_id"], total)

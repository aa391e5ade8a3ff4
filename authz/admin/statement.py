"""The command `usage statement`: what a tenant was billed for a month, and what proves that it is whole."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path  # noqa: TC003 (cyclopts reads it)
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

from attrs import evolve
from cyclopts import Parameter

import sql
from authz.accounts.session import opened
from authz.accounts.tenants import find_tenant
from authz.admin import output
from authz.admin.options import Options
from authz.admin.sheets import cell
from authz.admin.statement_page import page
from authz.admin.statement_values import Completeness, Item, Journal, Source, Statement, Tokens
from authz.chains.checkpoint import last_note
from authz.errors import CommandError, UsageError
from authz.models import canonical
from authz.stack.folder import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable

    from authz.accounts.session import Session

_queries = sql.load("usage")


async def statement(session: Session, tenant: str, first: date, now: datetime) -> Statement:
    """Return what a tenant was billed for the month that begins on a day. Raises CommandError."""
    after = (first + timedelta(days=31)).replace(day=1)
    async with session.store.connection() as connection:
        owner = await find_tenant(connection, tenant)
        begin, end = (datetime.combine(day, time.min, ZoneInfo(owner["timezone"])) for day in (first, after))
        if now < begin:
            raise CommandError(f"--month {first:%Y-%m} has not begun in {owner['timezone']}: give another.")
        month = {"tenant": owner["id"], "first": first, "after": after}
        # What a journal is read up to comes first: what is summed afterwards has all of that.
        completeness = await _completeness(connection, month)
        running = await _queries.month_runs(connection, tenant=owner["id"], first=first)
        sources = [row async for row in _queries.month_sources(connection, **month)]
        items = _items([row async for row in _queries.statement(connection, **month)], sources)
        days = [
            Tokens(f"{row['day']}", row["input_tokens"], row["output_tokens"])
            async for row in _queries.month_days(connection, **month)
        ]
    return Statement(
        tenant=tenant,
        month=f"{first:%Y-%m}",
        timezone=owner["timezone"],
        made_at=now,
        open=_open(end, now, running, completeness.journals),
        items=items,
        sources=_by_source(sources),
        days=days,
        tokens=sum(item.tokens for item in items),
        completeness=completeness,
    )


def _open(end: datetime, now: datetime, running: int, journals: Iterable[Journal]) -> str | None:
    """Return why a month is not final; None if nothing can be added to it but corrections."""
    if now < end:
        return f"The month is not over: it ends at {end.astimezone(UTC):%Y-%m-%d %H:%M}Z."
    for journal in journals:
        if not journal.is_retired and (journal.read_until is None or journal.read_until < end):
            return f"The journal of node {journal.node} is not read beyond the month yet."
    if running:
        return f"{running} requests of the month still run."
    return None


async def _completeness(connection: Any, month: dict[str, Any]) -> Completeness:
    journals = [
        Journal(
            str(row["node"]), row["lines"], row["lost_lines"], row["eof_at"], row["retired_at"] is not None
        )
        async for row in _queries.journals(connection)
    ]
    losses = await _queries.losses(connection)
    is_kept = await _queries.is_month_kept(connection, **month)
    sums = await _queries.month_sums(connection, **month)
    return Completeness(
        journals=journals,
        dead_letters=losses["dead_letters"],
        drift_tokens=sums["tokens"] - sums["budget"],
        is_kept=is_kept,
    )


def _items(rows: Iterable[Any], sources: Iterable[Any]) -> list[Item]:
    """Sum by key and model: the ledger keeps each name of a model as it was sent."""
    sums: defaultdict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        total = sums[row["key"], row["prefix"], _model(row)]
        for index, name in enumerate(("requests", "input_tokens", "output_tokens")):
            total[index] += row[name]
    gpu_ms: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in sources:
        gpu_ms[row["prefix"], _model(row)] += row["gpu_ms"]
    return [
        Item(key, prefix, model, requests, inputs, outputs, inputs + outputs, gpu_ms[prefix, model] / 1000)
        for (key, prefix, model), (requests, inputs, outputs) in sorted(sums.items())
    ]


def _by_source(rows: Iterable[Any]) -> list[Source]:
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        sums[row["source"]][0] += row["requests"]
        sums[row["source"]][1] += row["tokens"]
    return [Source(source, *total) for source, total in sorted(sums.items())]


def _model(row: Any) -> str:
    return canonical(row["model"]) if row["model"] else ""


async def statement_command(
    *,
    tenant: Annotated[str, Parameter(help="The tenant's name.")],
    month: Annotated[str, Parameter(help="Which month: 2026-11.")],
    html: Annotated[Path | None, Parameter(help="Write it as a page of its own, to print or send.")] = None,
    csv_: Annotated[Path | None, Parameter(name="--csv", help="Write its items as CSV.")] = None,
    checkpoint: Annotated[
        Path | None, Parameter(help="Name the last checkpoint of this file in it, by its digest.")
    ] = None,
    options: Options = Options(),
) -> int:
    """Show what a tenant was billed for a month of its time zone, by key and model.

    It is final once every journal is read beyond the month.

    Example: neuronetz-gateway usage statement --tenant acme --month 2026-11 --html acme.html
    """
    first = _first(month)
    async with opened(options.state) as session:
        found = await statement(session, tenant, first, datetime.now(UTC))
    if checkpoint is not None:
        found = evolve(found, checkpoint_sha256=_digest(checkpoint))
    if csv_ is not None:
        _write(csv_, _csv(found))
    if html is not None:
        _write(html, page(found))
    if options.json:
        output.show_value(found)
    elif html is None and csv_ is None:
        _show(found)
    return 0


def _show(found: Statement) -> None:
    empty = f"{found.tenant} was billed nothing in {found.month}."
    output.show_table(found.items, columns=list(Item.__annotations__), empty=empty)
    output.say(f"{found.tenant}, {found.month} ({found.timezone}): {found.tokens:,} tokens in all.")
    for note in (f"Final: {'no' if found.open else 'yes'}. {found.open or ''}".strip(), *found.notes):
        output.say(note)


def _csv(found: Statement) -> str:
    columns = list(Item.__annotations__)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tenant", "month", *columns, "is_final"])
    for item in found.items:
        cells = [cell(getattr(item, name)) for name in columns]
        writer.writerow([found.tenant, found.month, *cells, cell(found.is_final)])
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise CommandError(f"{path} can't be written ({error.strerror}): name another file.") from error


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(last_note(path.read_text()).encode()).hexdigest()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"The checkpoint {path} can't be read ({error}).") from error


def _first(month: str) -> date:
    try:
        return date.fromisoformat(f"{month}-01")
    except ValueError as error:
        raise UsageError(f"--month {month} is no month: write it like 2026-11.") from error

"""List administrators' changes and clients' refusals in one order of time, never a secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from attrs import frozen
from cyclopts import App, Parameter

import sql
from authz.accounts.keys import find_key
from authz.accounts.session import opened
from authz.accounts.tenants import find_tenant
from authz.admin import limit_options, output
from authz.admin.difference import in_words
from authz.admin.limit_options import moment
from authz.admin.options import ListOptions
from authz.errors import UsageError

if TYPE_CHECKING:
    from authz.accounts.session import Session

_queries = sql.load("admin")

app = App(name="audit", help="Show what was changed and refused, or prove that the books are whole.")
app.command("authz.admin.checkpoint:keygen_command", name="keygen")
app.command("authz.admin.checkpoint:checkpoint_command", name="checkpoint")
app.command("authz.admin.verify:verify_command", name="verify")
app.command("authz.admin.verify:prove_command", name="prove")


@frozen
class Event:
    """A change, a refused request, or how many were refused in a minute; old and new are JSON values."""

    id: str
    """What --after takes to go on behind it."""
    at: datetime
    actor: str
    action: str
    tenant: str | None
    key: str | None
    old: Any
    new: Any

    @property
    def time(self) -> str:
        """When, to the second."""
        return f"{self.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"

    @property
    def change(self) -> str:
        """Old and new in one line, without what is the same in both; what is null is none."""
        old, new = self.old, self.new
        if isinstance(old, dict) and isinstance(new, dict):
            names = [name for name in old | new if old.get(name) != new.get(name)]
            old, new = ({name: value.get(name) for name in names} for value in (old, new))
            return f"{_in_words(old)} -> {_in_words(new)}"
        return " -> ".join(_in_words(_said(value)) for value in (old, new) if value is not None)


async def audit(
    session: Session,
    *,
    since: datetime,
    tenant: str | None = None,
    prefix: str | None = None,
    actor: str | None = None,
    after: str | None = None,
    count: int | None = None,
) -> list[Event]:
    """List the changes and refusals since a moment, oldest first; so many behind the one with an id."""
    at, place = (None, None) if after is None else _parsed(after)
    async with session.store.connection() as connection:
        tenant_id = None if tenant is None else (await find_tenant(connection, tenant))["id"]
        key_id = None if prefix is None else (await find_key(connection, prefix))["id"]
        found = _queries.events(
            connection,
            since=since,
            tenant=tenant_id,
            key=key_id,
            actor=actor,
            after_at=at,
            after_place=place,
            count=count,
        )
        return [_event(row) async for row in found]


def _event(row: Any) -> Event:
    old, new = (None if row[name] is None else msgspec.json.decode(row[name]) for name in ("old", "new"))
    return Event(
        f"{row['at'].isoformat()}_{row['place']}",
        row["at"],
        row["actor"],
        row["action"],
        row["tenant"],
        row["key"],
        old,
        new,
    )


def _parsed(after: str) -> tuple[datetime, str]:
    at, _, place = after.partition("_")
    try:
        return datetime.fromisoformat(at).astimezone(UTC), place
    except ValueError as error:
        raise UsageError(f"--after {after} is no event: give the `id` of one in `audit --json`.") from error


def _said(value: Any) -> Any:
    """Leave out what is null of a value that is not compared with another."""
    if not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if part is not None}


def _in_words(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    words = (in_words(name, part) for name, part in value.items())
    return " ".join(f"{name}={_part(part)}" for name, part in words)


def _part(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return ",".join(name if end is None else f"{name} until {end}" for name, end in value.items())
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@app.default
async def audit_command(
    *,
    since: Annotated[str, Parameter(help="From when on: a date, a time, or a span like 7d.")] = "24h",
    tenant: Annotated[str | None, Parameter(help="Only this tenant.")] = None,
    prefix: limit_options.KeyPrefix = None,
    actor: Annotated[str | None, Parameter(help="Only what this one has changed.")] = None,
    options: ListOptions = ListOptions(),
) -> int:
    """Show what administrators changed and what clients were refused, in order of time.

    Example: neuronetz-gateway audit --since 7d --tenant acme
    """
    start = moment(since, datetime.now(UTC), is_past=True)
    async with opened(options.state) as session:
        found = await audit(
            session,
            since=start,
            tenant=tenant,
            prefix=prefix,
            actor=actor,
            after=options.after,
            count=options.limit + 1,
        )
    events = output.page(found, lambda row: row.id, limit=options.limit)
    if options.json:
        output.show_list(events)
    else:
        columns = ("time", "actor", "action", "tenant", "key", "change")
        output.show_table(
            events, columns=columns, empty=f"Nothing has happened since {start:%Y-%m-%d %H:%M}."
        )
    return 0

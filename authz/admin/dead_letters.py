"""Dead letters: lines of the journal that metering did not understand, and reading them again.

The metering that follows the journal reads them, so that only one process ever settles it.
"""

from __future__ import annotations

import asyncio
import re
from datetime import datetime  # noqa: TC003 (attrs reads it)
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID  # noqa: TC003 (attrs reads it)

from attrs import frozen
from cyclopts import Parameter

import sql
from authz.accounts.session import opened
from authz.admin import output
from authz.admin.options import ChangeOptions, ListOptions
from authz.errors import CommandError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from authz.accounts.session import Session

SHOWN_BYTES: Final = 80

POLL_S: Final = 0.25

_queries = sql.load("admin")


@frozen
class DeadLetter:
    """A line that was not understood, and whether it has been since."""

    id: int
    at: datetime
    node: UUID
    reason: str
    bytes: int
    beginning: str
    is_wanted: bool
    replayed: datetime | None


@frozen
class Replay:
    """The result of a replay: lines wanted, settled by now, and still waiting."""

    wanted: int
    settled: int
    waiting: int


async def letters(
    session: Session,
    *,
    reason: str | None = None,
    is_waiting: bool = False,
    after: int = 0,
    count: int | None = None,
) -> list[DeadLetter]:
    """List dead letters, oldest first: of a reason, those not replayed, so many behind an id."""
    async with session.store.connection() as connection:
        found = _queries.letters(
            connection, reason=reason, is_waiting=is_waiting, after=after, count=count, shown=SHOWN_BYTES
        )
        return [_letter(row) async for row in found]


def _letter(row: asyncpg.Record) -> DeadLetter:
    return DeadLetter(
        row["id"],
        row["at"],
        row["node"],
        row["reason"],
        row["length"],
        row["beginning"].decode(errors="replace"),
        row["is_replay_wanted"],
        row["replayed_at"],
    )


async def want(session: Session, ids: Sequence[int] | None) -> list[int]:
    """Have dead letters read again; None means all that were not. Those not kept whole can't be."""
    async with session.store.connection() as connection, connection.transaction():
        chosen = None if ids is None else list(ids)
        rows = [row async for row in _queries.want_replay(connection, ids=chosen)]
        wanted = [row["id"] for row in rows]
        new = [row["id"] for row in rows if not row["was_wanted"]]
        refused = set(ids or ()) - set(wanted)
        if refused:
            named = ", ".join(map(str, sorted(refused)))
            sentence = f"No letter to replay is {named}: it was replayed or not kept whole, see list."
            raise CommandError(sentence)
        if new:
            await session.audit(connection, "dead_letters_replayed", new={"letters": new})
    return wanted


async def progress(session: Session, wanted: Sequence[int]) -> Replay:
    """Return how many of these lines metering has read again."""
    async with session.store.connection() as connection:
        rows = [row async for row in _queries.letters_now(connection, ids=list(wanted))]
    settled = sum(row["replayed_at"] is not None for row in rows)
    return Replay(len(wanted), settled, sum(row["is_replay_wanted"] for row in rows))


async def letters_list_command(
    *,
    reason: Annotated[str | None, Parameter(help="Only those of this reason.")] = None,
    waiting: Annotated[bool, Parameter(help="Only those that were not replayed.", negative="")] = False,
    options: ListOptions = ListOptions(),
) -> int:
    """List the lines that were not understood.

    Example: neuronetz-gateway dead-letters list
    """
    async with opened(options.state) as session:
        rows = await letters(
            session,
            reason=reason,
            is_waiting=waiting,
            after=_id(options.after),
            count=options.limit + 1,
        )
    found = output.page(rows, lambda row: row.id, limit=options.limit)
    if options.json:
        output.show_list(found)
    else:
        columns = ("id", "at", "reason", "bytes", "replayed", "beginning")
        output.show_table(found, columns=columns, empty="No dead letter: every line was understood.")
    return 0


def _id(after: str | None) -> int:
    if after is not None and not re.fullmatch(r"[0-9]{1,18}", after, re.ASCII):
        raise UsageError(f"--after {after} is no dead letter: give an id as `dead-letters list` shows it.")
    return int(after or 0)


async def letters_replay_command(
    *ids: Annotated[int, Parameter(name="ID", help="As `dead-letters list` shows it; default all.")],
    wait_s: Annotated[int, Parameter(help="How long to wait for metering, which does it.")] = 30,
    options: ChangeOptions = ChangeOptions(),
) -> int:
    """Have metering read dead letters again and settle what it understands now; exit 1 if any is left.

    Example: neuronetz-gateway dead-letters replay 17 18
    """
    async with opened(options.state, actor=options.actor) as session:
        wanted = await want(session, ids or None)
        done = await _awaited(session, wanted, wait_s=wait_s)
    if options.json:
        output.show_value(done)
    else:
        output.say(_sentence(done))
    return 0 if done.settled == done.wanted else 1


async def _awaited(session: Session, wanted: Sequence[int], *, wait_s: int) -> Replay:
    done = await progress(session, wanted)
    for _ in range(int(wait_s / POLL_S)):
        if not done.waiting:
            break
        await asyncio.sleep(POLL_S)
        done = await progress(session, wanted)
    return done


def _sentence(done: Replay) -> str:
    if not done.wanted:
        return "No dead letter waits to be replayed."
    left = done.wanted - done.settled - done.waiting
    sentences = [f"{done.settled} of {done.wanted} replayed."]
    if left:
        sentences.append(
            f"{left} not understood by this version, or still refused by Postgres: see `dead-letters list`."
        )
    if done.waiting:
        sentences.append(f"{done.waiting} wait for metering: is it running? It reads them when it does.")
    return " ".join(sentences)

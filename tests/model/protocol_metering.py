"""How metering settles a journal in Postgres, and publishes it to Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.model.protocol_authz import waited
from tests.model.protocol_state import CREDIT, Cells, Model, Move, State, bits, in_ledger, put


def metering(m: Model, s: State) -> Iterator[Move]:
    """Yield what the metering of each node may do next: read, commit, publish, sweep."""
    for i, lines in enumerate(s.journal):
        if s.out[i]:
            yield f"settle reaches Redis {i + 1}", settle(m, s._replace(out=put(s.out, i, ())), s.out[i], i)
        elif s.batch[i]:
            yield f"commit {i + 1}", commit(m, s, i)
        elif s.unpublished[i] & CREDIT:
            yield f"publish {i + 1}", s._replace(out=put(s.out, i, (s.unpublished[i], s.total, s.version)))
        else:
            ready = sum(
                1 << w for w, x in enumerate(s.workers) if x and waited(m, s, x) and not x[2] >> i & 1
            )
            if lines or ready or s.late & ~s.late_read[i]:
                ended = sum(r for kind, r in lines if kind == "end") if m.on("line_frees_slot") else 0
                yield (
                    f"read to the end {i + 1}",
                    s._replace(
                        batch=put(s.batch, i, (len(lines), ready, s.late)),
                        redis=s.redis._replace(slots=s.redis.slots & ~ended),
                    ),
                )
            elif not i:
                yield from sweep(m, s)
    if s.stray:
        yield "stray settle reaches Redis", settle(m, s._replace(stray=()), s.stray)


class Books(NamedTuple):
    """What the transaction of one batch changes."""

    rows: int
    ledger: frozenset[tuple[int, int, int]]
    total: int
    taken: int
    ended: int = 0
    orphans: int = 0


def commit(m: Model, s: State, i: int) -> State:
    """One transaction of Postgres: the lines of a batch, its orphans, and how far the journal is read."""
    (count, ready, late), mine = s.batch[i], m.ids_of(i + 1)
    books = Books(s.rows, s.ledger, s.total, s.taken)
    for kind, r in (*s.journal[i][:count], ("end of file", 0)):
        if kind == "open":
            books = books._replace(rows=books.rows | r)
        elif kind == "end":
            books = _take(m, books, r, m.tokens(r & s.full))
        elif kind == "boot":
            books = _give_up(m, books, mine if m.on("later_boot") else 0)
        else:
            books = _give_up(m, books, mine & late if m.on("deadline_orphan") else 0)
    version = s.version + (books.total != s.total)
    done = books.ended | books.orphans
    listed = done if m.on("publish_from_ledger") else books.ended
    return s._replace(
        journal=put(s.journal, i, s.journal[i][count:]),
        batch=put(s.batch, i, ()),
        rows=books.rows,
        ledger=books.ledger,
        total=books.total,
        taken=books.taken,
        version=version,
        known=s.known | 1 << i,
        late_read=put(s.late_read, i, s.late_read[i] | late),
        workers=tuple(
            (*x[:2], x[2] | 1 << i, *x[3:]) if x and ready >> w & 1 else x for w, x in enumerate(s.workers)
        ),
        unpublished=put(s.unpublished, i, s.unpublished[i] | listed),
        out=put(s.out, i, (done, books.total, version) if done else ()),
    )


def _take(m: Model, books: Books, r: int, spent: int) -> Books:
    """Settle a record; one that comes after its request was given up becomes an adjustment."""
    if books.taken & r and m.on("line_once"):
        return books
    settled, now = (
        sum(x for i, entry, x in books.ledger if i == r and entry in which) for which in ((0,), (0, 1, 2))
    )
    least = -now if m.on("adjusts_not_below_0") else -9
    change = max(spent - (settled if m.on("adjusts_the_settlement") else now), least)
    ledger, total = books.ledger, books.total
    if not in_ledger(ledger) & r:
        ledger, total = ledger | {(r, 0, spent)}, total + spent
    elif spent == settled and not m.on("offset_in_commit"):
        total += spent  # the row exists, the window is raised again
    elif m.on("late_line_adjusts"):
        ledger, total = ledger | {(r, 1, change)}, total + change
    return Books(books.rows & ~r, ledger, total, books.taken | r, books.ended | r, books.orphans)


def _give_up(m: Model, books: Books, due: int) -> Books:
    """Settle open rows whose record never came at what they reserve."""
    for r in bits(books.rows & due):
        books = books._replace(
            rows=books.rows & ~r,
            ledger=books.ledger | {(r, 0, m.tokens(r))},
            total=books.total + m.tokens(r),
            orphans=books.orphans | r,
        )
    return books


def sweep(m: Model, s: State) -> Iterator[Move]:
    """Settle what Redis holds past every deadline and no journal knows."""
    late = s.late
    for ids in s.late_read:
        late &= ids
    for r in bits(s.redis.held & late & ~s.rows & ~in_ledger(s.ledger) if m.on("sweep") else 0):
        spent = 0 if m.on("sweep_is_free") else m.tokens(r)
        total, version = s.total + spent, s.version + (spent > 0)
        listed = s.unpublished[0] | (r if m.on("publish_from_ledger") else 0)
        yield (
            f"sweep {r}",
            s._replace(
                ledger=s.ledger | {(r, 0, spent)},
                total=total,
                version=version,
                unpublished=put(s.unpublished, 0, listed),
                out=put(s.out, 0, (r, total, version)),
            ),
        )


def settle(m: Model, s: State, message: Cells, i: int | None = None) -> State:
    """One script: absolute total with its version, and the ids that are closed."""
    (ids, total, version), d = message, s.redis
    if i is not None:
        s = s._replace(unpublished=put(s.unpublished, i, s.unpublished[i] & ~ids))
    if not d.epoch and not m.on("settle_without_epoch"):
        return s
    if ids and i is not None and not m.on("settle_is_one_call"):
        s = s._replace(out=put(s.out, i, (0, total, version)))
    elif version > d.version or not m.on("version_max"):
        d = d._replace(used=total if m.on("total_is_set") else max(d.used, total), version=version)
    ids &= ~CREDIT
    if m.on("settle_unstages"):
        d = d._replace(staged=d.staged & ~ids)
    return s._replace(
        closed=s.closed | ids,
        redis=d._replace(
            held=d.held & ~ids, slots=d.slots & ~ids, tomb=d.tomb | ids if m.on("tombstone") else 0
        ),
    )

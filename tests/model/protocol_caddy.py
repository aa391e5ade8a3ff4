"""What guard and tap do with a request, one atomic step at a time."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.protocol_state import Model, Move, State, bits, go, put


def caddy(m: Model, s: State) -> Iterator[Move]:
    """Yield what guard, tap and the nodes themselves may do next."""
    yield from _asks(m, s)
    yield from _opens(m, s)
    yield from _waits_in_queue(m, s)
    yield from _ends(m, s)
    for node in range(1, len(s.journal) + 1):
        if not s.up & node:
            journal = put(s.journal, node - 1, (*s.journal[node - 1], ("boot", 0)))
            yield f"start node {node}", s._replace(up=s.up | node, journal=journal)


def _asks(m: Model, s: State) -> Iterator[Move]:
    """The guard asks authz; of requests that are alike the first comes first."""
    for r in bits(s.new):
        twins = [
            q for q in bits(s.new) if q < r and m.node_of(q) == m.node_of(r) and m.tokens(q) == m.tokens(r)
        ]
        if s.up & m.node_of(r) and s.key and not twins:
            yield f"ask {r}", go(s, r, "asked", fresh=s.fresh | r, asks=s.asks | r)


def _opens(m: Model, s: State) -> Iterator[Move]:
    """The tap has a Grant: it writes the open line, looks at the clock and sends the request upstream."""
    for r in bits(s.asked & s.grants):
        if m.on("clock_after_line"):
            yield (
                f"open line {r}",
                go(s, r, "opened", grants=s.grants & ~r, lined=s.lined | r, journal=m.line(s, "open", r)),
            )
        elif s.fresh & r:
            yield f"tap looks at the clock {r}", go(s, r, "checked", grants=s.grants & ~r)
    for r in bits(s.checked):
        yield (
            f"open line, upstream {r}",
            go(
                s,
                r,
                "running",
                ran=s.ran | r,
                lined=s.lined | r,
                fresh=s.fresh & ~r,
                journal=m.line(s, "open", r),
            ),
        )
    for r in bits(s.opened):
        if s.fresh & r or not m.on("grant_age"):
            journal = s.journal
            if not m.on("open_line_first"):
                journal = tuple(tuple(x for x in lines if x != ("open", r)) for lines in journal)
            yield f"upstream {r}", go(s, r, "running", ran=s.ran | r, fresh=s.fresh & ~r, journal=journal)
            if m.world.queue:
                yield f"queue {r}", go(s, r, "queued", fresh=s.fresh & ~r)


def _waits_in_queue(m: Model, s: State) -> Iterator[Move]:
    """A request leaves the tap's queue, upstream or with its client."""
    for r in bits(s.queued):
        yield f"upstream {r}", go(s, r, "running", ran=s.ran | r)
        if m.world.slow_end:
            yield f"leaves the queue {r}", go(s, r, "cut")
        else:
            yield from record(m, s, f"leaves the queue {r}", r)


def _ends(m: Model, s: State) -> Iterator[Move]:
    """A request ends, and its record is written: once, late, never, or once more."""
    for r in bits(s.copy):
        yield f"record once more {r}", s._replace(copy=s.copy & ~r, journal=m.line(s, "end", r))
    for r in bits(s.asked | s.checked | s.opened):
        yield from record(
            m, s._replace(grants=s.grants & ~r, fresh=s.fresh & ~r), f"refused, gave up or client gone {r}", r
        )
    for r in bits(s.running):
        for full in (s.full, s.full | r):
            if m.world.slow_end:
                yield f"ends upstream {r}", go(s, r, "cut", full=full)
            else:
                yield from record(m, s._replace(full=full), f"ends {r}", r)
        if not m.on("done_is_true") and not s.done & r:
            yield f"done too early {r}", s._replace(done=s.done | r)
    for r in bits(s.cut):
        yield from record(m, s, f"record {r}", r)


def record(m: Model, s: State, label: str, r: int) -> Iterator[Move]:
    """A request's record is written, unless it gets lost or is written twice."""
    yield label, go(s, r, "over", done=s.done | r, journal=m.line(s, "end", r))
    if s.losses:
        yield label + ", record lost", go(s, r, "over", done=s.done | r, lost=s.lost | r, losses=s.losses - 1)
    if s.copies:
        yield (
            label + ", to be written twice",
            go(
                s,
                r,
                "over",
                done=s.done | r,
                copy=s.copy | r,
                copies=s.copies - 1,
                journal=m.line(s, "end", r),
            ),
        )

"""The state of the protocol's parts, and the small functions that all of them use.

Requests and nodes are bits (1, 2, 4), sets of them are ints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from attrs import frozen

from tests.model.protocol_rules import World

Cells = tuple[Any, ...]
"""A small record that is empty where there is none."""

CREDIT: Final = 1 << 9
"""In place of an id in what is to be published: a correction."""

PHASES: Final = ("new", "asked", "checked", "opened", "queued", "running", "cut", "over", "dead")
"""cut: ended upstream, no record yet; dead: lost in a crash."""


class Redis(NamedTuple):
    """The tenant's hash; the mark has a number and the ids that were undecided when it was set."""

    epoch: int = 0
    mark: Cells = ()
    used: int = 0
    version: int = 0
    held: int = 0
    slots: int = 0
    tomb: int = 0
    key: int = 0
    staged: int = 0


class State(NamedTuple):
    """Everything there is, at one moment."""

    # Caddy: requests by phase; those younger than 2 s and undecided; done ids not sent yet; nodes up;
    # per node, uncommitted lines; records to be written once more.
    new: int = 0
    asked: int = 0
    checked: int = 0
    opened: int = 0
    queued: int = 0
    running: int = 0
    cut: int = 0
    over: int = 0
    dead: int = 0
    fresh: int = 0
    done: int = 0
    up: int = 0
    journal: Cells = ()
    copy: int = 0
    # authz: admits that may still reach Redis; Grants on their way; the cached identity (1 valid, 2
    # revoked); per worker () or (mark, undecided ids, nodes read to the end, data, batches sent).
    asks: int = 0
    grants: int = 0
    cache: int = 1
    workers: Cells = ()
    marks: int = 0
    redis: Redis = Redis()
    saved: Cells | Redis = ()
    # Postgres: the key's version; nodes it knows; open rows; records taken; ledger of (id, entry,
    # tokens); window and its version; per node, ids in the ledger not known to be published.
    key: int = 1
    known: int = 0
    rows: int = 0
    taken: int = 0
    ledger: frozenset[tuple[int, int, int]] = frozenset()
    total: int = 0
    version: int = 0
    unpublished: Cells = ()
    # metering, per node: batch () or (lines, workers whose end of file this is, late ids), settle () or
    # (ids, total, version); a settle on the wire of a killed process; ids past deadline + 60 s; per
    # node, those at a committed end of file.
    batch: Cells = ()
    out: Cells = ()
    stray: Cells = ()
    late: int = 0
    late_read: Cells = ()
    cli: int = 0
    # What may still go wrong.
    crashes: int = 0
    flushes: int = 0
    restores: int = 0
    kills: int = 0
    replays: int = 0
    expiries: int = 0
    losses: int = 0
    copies: int = 0
    # Only for invariants: has an open line; went upstream; used all it reserved, else nothing; record
    # lost; closed; what broke; ids older than a tombstone lives.
    lined: int = 0
    ran: int = 0
    full: int = 0
    lost: int = 0
    closed: int = 0
    bad: str = ""
    old: int = 0


Move = tuple[str, State]
"""One atomic event, and the state after it."""


@frozen
class Model:
    """A world under some of the rules; `on` marks the place where a rule acts."""

    world: World
    rules: frozenset[str]

    def on(self, rule: str) -> bool:
        """Return whether a rule is kept."""
        return rule in self.rules

    def node_of(self, r: int) -> int:
        """Return the node of a request."""
        return self.world.node[r.bit_length() - 1]

    def tokens(self, ids: int) -> int:
        """Return what requests reserve."""
        return sum(size for i, size in enumerate(self.world.size) if ids >> i & 1)

    def ids_of(self, node: int) -> int:
        """Return the requests of a node."""
        return sum(1 << i for i in range(len(self.world.size)) if self.world.node[i] == node)

    def line(self, s: State, kind: str, r: int) -> Cells:
        """Return the journals with one more line of a request's node."""
        i = self.node_of(r) - 1
        return put(s.journal, i, (*s.journal[i], (kind, r)))

    def start(self) -> State:
        """Return the first state."""
        world = self.world
        nodes = max(world.node[: len(world.size)])
        none = ((),) * nodes
        s = State(
            new=(1 << len(world.size)) - 1,
            up=(1 << nodes) - 1,
            journal=none,
            workers=((),) * world.workers,
            known=(1 << nodes) - 1,
            redis=Redis(epoch=1, key=1),
            unpublished=(0,) * nodes,
            batch=none,
            out=none,
            late_read=(0,) * nodes,
            crashes=world.crashes,
            flushes=world.flushes,
            restores=world.restores,
            kills=world.kills,
            replays=world.replays,
            expiries=world.expiries,
            losses=world.losses,
            copies=world.copies,
        )
        if world.started:
            r = world.started
            redis = s.redis._replace(held=r, slots=r)
            s = s._replace(new=s.new & ~r, running=r, lined=r, ran=r, rows=r, redis=redis)
        if world.cli == "create":
            s = s._replace(key=0, redis=Redis())
        if world.new_node:
            s = s._replace(known=1, journal=((), (("boot", 0),)))
        return s


def bits(mask: int) -> Iterator[int]:
    """Yield the members of a set."""
    while mask:
        yield mask & -mask
        mask &= mask - 1


def put(cells: Cells, index: int, value: Any) -> Cells:
    """Return the cells with another value in one of them."""
    return (*cells[:index], value, *cells[index + 1 :])


def in_ledger(ledger: frozenset[tuple[int, int, int]]) -> int:
    """Return the requests that the ledger knows."""
    return sum({r for r, _, _ in ledger})


def go(s: State, ids: int, phase: str, **more: Any) -> State:
    """Return the state with requests in another phase."""
    moved = {p: getattr(s, p) & ~ids for p in PHASES}
    moved[phase] |= ids
    return s._replace(**moved, **more)

"""The rules of admission and settlement, and the small worlds in which each of them counts."""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen
class Rule:
    """What must be kept, and the world that breaks without it."""

    world: str
    text: str


@frozen(kw_only=True)
class World:
    """A budget and slots for a few requests on some nodes, and how often what may go wrong."""

    name: str
    limit: int = 3
    slots: int = 2
    size: tuple[int, ...] = (2, 2)
    node: tuple[int, ...] = (1, 1, 1)
    workers: int = 1
    cli: str = ""
    crashes: int = 0
    flushes: int = 0
    restores: int = 0
    kills: int = 0
    replays: int = 0
    expiries: int = 0
    losses: int = 0
    copies: int = 0
    slow_end: bool = False
    new_node: bool = False
    queue: bool = False
    started: int = 0


RULES: Final = {
    "epoch": Rule("restore", "admit refuses a hash whose epoch is absent or of another run of Redis"),
    "tombstone": Rule("plain", "settle leaves a tombstone, admit refuses a closed id"),
    "id_age": Rule("expire", "admit refuses an id older, by Redis's clock, than a tombstone lives"),
    "grant_age": Rule("flush", "the tap serves no Grant more than 2 s after its Ask"),
    "clock_after_line": Rule(
        "flush", "the tap looks at the clock after the open line is written, not only before"
    ),
    "open_line_first": Rule("slow", "the open line is written before the request goes upstream"),
    "mark": Rule(
        "reflush",
        "a loss is noticed by a mark in Redis; the rebuild's script runs only while that mark is there",
    ),
    "wait_2s": Rule("flush", "the rebuild reads Postgres no sooner than 2 s after the mark"),
    "eof": Rule("flush", "and only after metering has committed to an end of file read later than that"),
    "eof_of_every_node": Rule("new node", "on every node that Postgres knows"),
    "known_node": Rule("new node", "admit is not called for a node that Postgres does not know"),
    "one_snapshot": Rule("flush", "totals, open rows, versions and closed ids are read in one snapshot"),
    "staging_skips_closed": Rule("reflush workers", "a batch stages no open row whose id has a tombstone"),
    "settle_unstages": Rule(
        "expire workers", "settle takes its ids out of what is staged under the mark that stands, too"
    ),
    "staged_under_mark": Rule(
        "reflush workers", "what is staged carries the mark: staged under another, it is unread"
    ),
    "batch_is_young": Rule(
        "expire workers",
        "no batch of a reading older than a tombstone's life: all who found the mark share what is staged",
    ),
    "epoch_last": Rule("flush", "the last script sets the epoch, after everything else"),
    "rebuild_keeps_max": Rule(
        "kill flush", "a total of a lower version than the one in Redis is not written"
    ),
    "rebuild_closes": Rule("flush", "ids closed less than a tombstone's life ago get their tombstone back"),
    "rebuild_slots": Rule("slots flush", "slots are rebuilt from the open rows too"),
    "names_carry_run": Rule("restore", "held and slots of an earlier run are unread"),
    "run_is_new": Rule("restore", "every loss of writes changes the run, a failover there and back too"),
    "settle_without_epoch": Rule(
        "flush", "settle writes a hash without epoch too: the total and the tombstones"
    ),
    "settle_is_one_call": Rule("plain", "settle releases the reservation and raises the total in one script"),
    "version_max": Rule("kill", "a script only ever raises a total's version"),
    "total_is_set": Rule("credit", "the higher version sets the total, be it lower"),
    "credit_is_versioned": Rule("credit", "a correction raises the window's version in its own transaction"),
    "credit_in_outbox": Rule("credit", "and inserts into the outbox there"),
    "credit_not_below_0": Rule("credit", "and takes no id's sum below 0"),
    "republish": Rule("kill", "what is committed and not known to be published is published again"),
    "publish_from_ledger": Rule(
        "crash kill", "this is found by ledger rows, not by journal lines: orphans have no line"
    ),
    "offset_in_commit": Rule("kill", "offset, ledger and windows are one transaction"),
    "later_boot": Rule(
        "crash", "an open row of an earlier boot is settled at its reservation when a later boot line is read"
    ),
    "deadline_orphan": Rule(
        "lost line", "so is one whose deadline + 60 s lies before an end of file that was read"
    ),
    "late_line_adjusts": Rule("slow", "a record that comes after that becomes an adjustment"),
    "adjusts_the_settlement": Rule(
        "slow credit", "of the settlement (entry 0) only: a correction made meanwhile stands"
    ),
    "adjusts_not_below_0": Rule("slow credit", "and takes no id's sum below 0"),
    "line_once": Rule("slow copy", "a (boot, seq) is taken once, remembered in the batch's transaction"),
    "queue_in_deadline": Rule("slow queue", "who waits in the tap's queue leaves it before the deadline"),
    "sweep": Rule(
        "crash",
        "a reservation past its deadline + 60 s that no journal knows at such an end of file is settled",
    ),
    "sweep_is_free": Rule("crash", "at 0: without an open line it never ran"),
    "done_is_true": Rule("slots", "a done id has ended upstream"),
    "done_frees_slot_only": Rule("plain", "done frees the slot, never the reservation"),
    "key_checked": Rule("revoke", "admit compares the identity's version with Redis"),
    "key_raise_only": Rule("revoke", "a script only ever raises that version"),
    "commit_then_raise": Rule("revoke", "the CLI commits, then raises"),
    "raise_then_return": Rule("revoke", "then returns"),
    "create_before_commit": Rule(
        "create", "a new tenant's hash is published before the tenant is committed, and by nothing else"
    ),
}
"""What the implementation must keep."""

COMFORTS: Final = {
    "done": Rule("slots", "slots are freed by the node's next Ask"),
    "line_frees_slot": Rule("slots", "slots are freed when a record is read, before its commit"),
    "replay_returns_grant": Rule(
        "replay crash", "a repeated admit of a held id returns the Grant (without it the client gets a 503)"
    ),
    "batch_checks_mark": Rule(
        "reflush workers",
        "a batch whose mark was lost is not written (what it stages is unread, what is monotone is true)",
    ),
    "last_is_young": Rule(
        "expire workers",
        "the last script looks at the reading's age too (settle has unstaged what has closed since)",
    ),
    "staged_apart": Rule(
        "reflush workers", "batches that look at the mark may as well write where it will be read"
    ),
}
"""What no invariant needs: it makes things sooner or cheaper, or says a thing twice."""

WORLDS: Final = {
    world.name: world
    for world in (
        World(name="plain"),
        World(name="slots", limit=9, slots=1),
        World(name="three", limit=4, size=(2, 2, 2), started=1),
        World(name="slow", slow_end=True),
        World(name="slow crash", crashes=1, slow_end=True),
        World(name="crash", crashes=1),
        World(name="kill", kills=1),
        World(name="crash kill", crashes=1, kills=1),
        World(name="replay", replays=1),
        World(name="replay crash", crashes=1, replays=1),
        World(name="expire", expiries=1),
        World(name="expire flush", flushes=1, expiries=1, started=1),
        World(name="lost line", losses=1),
        World(name="nodes", node=(1, 2)),
        World(name="nodes crash kill", node=(1, 2), crashes=1, kills=1),
        World(name="flush", flushes=1),
        World(name="replay flush", flushes=1, replays=1, started=1),
        World(name="slots flush", limit=9, slots=1, flushes=1, started=1),
        World(name="crash flush", crashes=1, flushes=1, started=1),
        World(name="kill flush", flushes=1, kills=1, started=1),
        World(name="restore", restores=1),
        World(name="revoke", size=(2,), cli="revoke", flushes=1),
        World(name="reflush", size=(2,), cli="revoke", flushes=2),
        World(name="create", cli="create", flushes=1),
        World(name="new node", node=(1, 2), flushes=1, new_node=True),
        World(name="workers", workers=2, flushes=1, started=1),
        World(name="expire workers", size=(2,), workers=2, flushes=1, expiries=1),
        World(name="reflush workers", size=(2,), workers=2, flushes=2, started=1),
        World(name="slow copy", copies=1, slow_end=True),
        World(name="copy crash kill", size=(2,), crashes=1, kills=1, copies=1),
        World(name="slow queue", limit=9, slots=1, slow_end=True, queue=True),
        World(name="queue crash kill", crashes=1, kills=1, queue=True),
        World(name="credit", cli="credit"),
        World(name="slow credit", size=(2,), cli="credit", crashes=1, copies=1, slow_end=True),
        World(name="credit nodes kill", node=(1, 2), cli="credit", kills=1),
        World(name="credit flush", cli="credit", flushes=1, started=1),
        World(name="credit workers", size=(2,), workers=2, cli="credit", flushes=2, kills=1, started=1),
    )
}

"""What happens around a request: commands, time that passes, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.protocol_metering import commit
from tests.model.protocol_state import CREDIT, Model, Move, Redis, State, bits, go, in_ledger, put


def cli(m: Model, s: State) -> Iterator[Move]:
    """The admin CLI: two steps, then it has returned; or a credit, which is one."""
    d, step = s.redis, s.cli + 1
    if m.world.cli == "credit" and not s.cli:
        yield from credit(m, s)
    if m.world.cli in ("", "credit") or step > 2:
        return
    if m.world.cli == "revoke":
        committed, commit_first = s._replace(key=2, cli=step), m.on("commit_then_raise")
        published = s._replace(redis=d._replace(key=max(d.key, 2)), cli=step)
    else:
        committed, commit_first = s._replace(key=1, cli=step), not m.on("create_before_commit")
        published = s._replace(redis=d if d.epoch else d._replace(epoch=1, key=1, mark=()), cli=step)
    if m.world.cli == "revoke" and not m.on("raise_then_return"):
        yield "revoke: commit, return", committed._replace(cli=2)
    else:
        yield (
            (f"{m.world.cli}: commit", committed)
            if commit_first == (step == 1)
            else (f"{m.world.cli}: Redis", published)
        )


def credit(m: Model, s: State) -> Iterator[Move]:
    """One transaction of the CLI; metering publishes it."""
    for r in bits(in_ledger(s.ledger)):
        for less in (1, 2):
            if less <= sum(x for i, _, x in s.ledger if i == r) or not m.on("credit_not_below_0"):
                yield (
                    f"credit {less} {r}",
                    s._replace(
                        cli=1,
                        ledger=s.ledger | {(r, 2, -less)},
                        total=s.total - less,
                        version=s.version + m.on("credit_is_versioned"),
                        unpublished=put(
                            s.unpublished, 0, s.unpublished[0] | (CREDIT if m.on("credit_in_outbox") else 0)
                        ),
                    ),
                )


def two_seconds(_: Model, s: State) -> Iterator[Move]:
    """Two seconds pass for an Ask that is undecided."""
    return ((f"2 s pass {r}", s._replace(fresh=s.fresh & ~r)) for r in bits(s.fresh))


def deadline(m: Model, s: State) -> Iterator[Move]:
    """The deadline + 60 s passes for what has ended upstream and still holds something."""
    d = s.redis
    ended = s.over | s.dead | s.cut | (0 if m.on("queue_in_deadline") else s.queued)
    for r in bits(ended & (d.held | d.slots | s.rows) & ~s.late):
        yield f"deadline passes {r}", s._replace(late=s.late | r, redis=d._replace(slots=d.slots & ~r))


def faults(m: Model, s: State) -> Iterator[Move]:
    """What goes wrong, as often as the world says."""
    yield from _loses_caddy(m, s)
    yield from _loses_redis(m, s)
    yield from _loses_metering(m, s)
    for r in bits(s.redis.tomb if s.expiries else 0):
        redis = s.redis._replace(tomb=s.redis.tomb & ~r)
        yield f"tombstone expires {r}", s._replace(redis=redis, old=s.old | r, expiries=s.expiries - 1)


def _loses_caddy(m: Model, s: State) -> Iterator[Move]:
    for node in bits(s.up if s.crashes else 0):
        lost = (s.asked | s.checked | s.opened | s.queued | s.running | s.cut) & m.ids_of(node)
        if lost:
            yield (
                f"kill -9 node {node}",
                go(
                    s,
                    lost,
                    "dead",
                    fresh=s.fresh & ~lost,
                    grants=s.grants & ~lost,
                    copy=s.copy & ~m.ids_of(node),
                    done=s.done & ~m.ids_of(node),
                    up=s.up & ~node,
                    crashes=s.crashes - 1,
                ),
            )


def _loses_redis(m: Model, s: State) -> Iterator[Move]:
    if s.flushes:
        yield "Redis loses all", s._replace(redis=Redis(), flushes=s.flushes - 1)
    if s.restores and not s.saved:
        yield "snapshot of Redis", s._replace(saved=s.redis)
    elif s.restores and isinstance(s.saved, Redis) and s.saved != s.redis:
        lost = s.saved._replace(epoch=0, mark=(), staged=0) if m.on("run_is_new") else s.saved
        if m.on("names_carry_run") and m.on("run_is_new"):
            lost = lost._replace(held=0, slots=0)
        yield "Redis is restored", s._replace(redis=lost, saved=(), restores=s.restores - 1)


def _loses_metering(m: Model, s: State) -> Iterator[Move]:
    for i in range(len(s.journal) if s.kills else 0):
        if s.out[i]:
            again = (s.unpublished[i], s.total, s.version) if s.unpublished[i] and m.on("republish") else ()
            dead = s._replace(out=put(s.out, i, again), kills=s.kills - 1)
            yield f"kill -9 metering {i + 1}", dead
            yield f"kill -9 metering {i + 1}, its settle on the wire", dead._replace(stray=s.out[i])
        elif s.batch[i] and not m.on("offset_in_commit"):
            yield (
                f"kill -9 metering {i + 1} before the offset",
                commit(m, s, i)._replace(journal=s.journal, kills=s.kills - 1),
            )

"""How authz admits a request, and how a worker of it rebuilds a lost Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.model.protocol_state import Cells, Model, Move, Redis, State, bits, in_ledger, put


def authz(m: Model, s: State) -> Iterator[Move]:
    """Yield the admissions that may reach Redis next, and what a node's Ask says of others."""
    if s.done and m.on("done"):
        d = s.redis._replace(slots=s.redis.slots & ~s.done)
        yield (
            "done",
            s._replace(
                done=0, redis=d if m.on("done_frees_slot_only") else d._replace(held=d.held & ~s.done)
            ),
        )
    for r in bits(s.asks):
        after = admit(m, s, r)
        yield f"admit {r}", after
        if s.replays and not after.asks & r:
            yield f"admit, to be repeated {r}", after._replace(asks=s.asks, replays=s.replays - 1)


def admit(m: Model, s: State, r: int) -> State:
    """One script; it may run long after the guard gave up."""
    d, refused = s.redis, s._replace(asks=s.asks & ~r)
    if not d.epoch and m.on("epoch"):
        return refused
    if s.cache != d.key and m.on("key_checked"):
        return refused if s.cache == s.key else s._replace(cache=s.key)
    is_unknown = not s.known & m.node_of(r) and m.on("known_node")
    is_closed = d.tomb & r or (s.old & r and m.on("id_age"))
    if s.cache != 1 or is_unknown or is_closed:
        return refused
    if d.held & r:
        return refused._replace(grants=s.grants | r & s.asked) if m.on("replay_returns_grant") else refused
    if d.slots.bit_count() >= m.world.slots or d.used + m.tokens(d.held | r) > m.world.limit:
        return refused
    bad = ""
    if s.closed & r:
        bad = "L2: a closed id is admitted"
    elif not d.epoch:
        bad = "L6: admitted before the rebuild"
    elif m.world.cli == "revoke" and s.cli == 2:
        bad = "L7: admitted after the revoke returned"
    return refused._replace(
        grants=s.grants | r & s.asked,
        redis=d._replace(held=d.held | r, slots=d.slots | r),
        bad=bad,
        late=s.late & ~r,
        late_read=tuple(ids & ~r for ids in s.late_read),
    )


def waited(m: Model, s: State, worker: Cells) -> bool:
    """Return whether every Ask that was undecided at a worker's mark is decided."""
    return not worker[1] & s.fresh or not m.on("wait_2s")


def rebuild(m: Model, s: State) -> Iterator[Move]:
    """Yield what each worker that rebuilds may do next."""
    for w, worker in enumerate(s.workers):
        if worker:
            yield from _work(m, s, w)
        elif not s.redis.epoch and s.key:
            yield _notice(m, s, w)


def _become(s: State, w: int, *now: Any, **more: Any) -> State:
    return s._replace(workers=put(s.workers, w, now), **more)


def _notice(m: Model, s: State, w: int) -> Move:
    """A worker finds that Redis has lost the hash, and marks that unless another has."""
    if s.redis.mark:
        return f"worker {w} finds the mark", _become(s, w, *s.redis.mark, 0, (), 0)
    if not m.on("mark"):
        return f"worker {w} notices the loss", _become(s, w, 0, s.fresh, 0, (), 0)
    mark = (s.marks + 1, s.fresh)
    redis = s.redis._replace(mark=mark)
    return f"worker {w} marks the loss", _become(s, w, *mark, 0, (), 0, marks=mark[0], redis=redis)


def _work(m: Model, s: State, w: int) -> Iterator[Move]:
    """A worker reads Postgres, sends its batches one by one, and ends the loss or gives up."""
    mark, undecided, seen, data, _ = s.workers[w]
    closed = in_ledger(s.ledger) & ~s.old
    if not data:
        need = s.known if m.on("eof_of_every_node") else 1
        if waited(m, s, s.workers[w]) and (not need & ~seen or not m.on("eof")):
            first, rest = (s.total, s.version, s.key), (s.rows, closed)
            read = first + rest if m.on("one_snapshot") else first
            yield f"worker {w} reads Postgres", _become(s, w, mark, undecided, seen, read, 0)
    elif len(data) == 3:
        whole = (*data, s.rows, closed)
        yield f"worker {w} reads open rows", _become(s, w, mark, undecided, seen, whole, 0)
    else:
        yield _write(m, s, w)


def _write(m: Model, s: State, w: int) -> Move:
    """A worker that has read Postgres writes to Redis what it may."""
    d = s.redis
    mark, undecided, seen, data, sent = s.workers[w]
    stands = (not m.on("mark") and not d.epoch) or d.mark[:1] == (mark,)
    is_young = not data[3] & s.old
    is_sent = sent == len(m.world.size)
    may_send = is_young or not m.on("batch_is_young")
    is_under_mark = stands or not m.on("batch_checks_mark") or not m.on("staged_under_mark")
    if not is_sent and may_send and is_under_mark:
        redis = send(m, d, mark, sent, *data)
        after = _become(s, w, mark, undecided, seen, data, sent + 1, redis=redis)
        return f"worker {w} sends batch {sent + 1}", after
    is_ended = bool(d.epoch) and m.on("epoch_last")
    is_late = not is_young and m.on("last_is_young")
    if not is_sent or is_ended or not stands or is_late:
        return f"worker {w} gives up", _become(s, w)
    return f"worker {w} rebuilds", _become(s, w, redis=rebuilt(m, d), closed=s.closed | data[-1])


def send(
    m: Model, d: Redis, mark: int, sent: int, total: int, version: int, key: int, rows: int, closed: int
) -> Redis:
    """One script. What is monotone goes where it belongs, open rows are staged under the mark."""
    r = 1 << sent
    if not sent:
        if not m.on("rebuild_keeps_max") or version > d.version:
            d = d._replace(used=total, version=version)
        d = d._replace(
            key=max(key, d.key) if m.on("key_raise_only") else key, epoch=d.epoch if m.on("epoch_last") else 1
        )
    if r & closed and m.on("rebuild_closes") and m.on("tombstone"):
        d = d._replace(tomb=d.tomb | r)
    if m.on("staged_under_mark") and m.on("mark") and d.mark[:1] != (mark,):
        return d
    if not m.on("staged_apart"):
        return d._replace(held=d.held | r & rows & ~d.tomb, slots=d.slots | r & rows & ~d.tomb)
    return d._replace(staged=d.staged | r & rows & ~(d.tomb if m.on("staging_skips_closed") else 0))


def rebuilt(m: Model, d: Redis) -> Redis:
    """The last script."""
    held = d.staged if m.on("names_carry_run") and m.on("staged_apart") else d.staged | d.held
    return d._replace(epoch=1, mark=(), staged=0, held=held, slots=held if m.on("rebuild_slots") else 0)

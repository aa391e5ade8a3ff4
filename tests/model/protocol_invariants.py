"""What must be true in every state, and at rest."""

from __future__ import annotations

from tests.model.protocol_state import Model, State, bits, in_ledger


def exposure(m: Model, s: State) -> int:
    """What was consumed and what may still be: the truth, not what Redis thinks."""
    granted = s.asked & s.grants | s.opened
    granted &= s.fresh if m.on("grant_age") else granted
    unsettled = s.checked | s.queued | s.running | granted | s.ran & (s.full | s.dead)
    return sum(spent for r, _, spent in s.ledger if r & s.ran) + m.tokens(unsettled & ~in_ledger(s.ledger))


def broken(m: Model, s: State) -> str:
    """Return the invariant that this state breaks, whatever comes next."""
    if s.bad:
        return s.bad
    if exposure(m, s) > m.world.limit:
        return "L3: more is promised than the budget allows"
    if s.running.bit_count() > m.world.slots:
        return "L4: more requests run than there are slots"
    if s.total < 0 or s.redis.used < 0:
        return "B3: a total below 0"
    if len({row[:2] for row in s.ledger}) < len(s.ledger):
        return "B2: two rows for one (id, entry)"
    return (
        "" if s.total == sum(spent for _, _, spent in s.ledger) else "B3: the window differs from the ledger"
    )


def broken_at_rest(m: Model, s: State, *, every_deadline_passed: bool) -> str:
    """Nothing is left to do. Before the deadlines only a crash or a lost record excuses a reservation."""
    d = s.redis
    excused = 0 if every_deadline_passed else s.dead & ~s.lined | s.lost
    if (d.held | d.slots) & ~excused:
        return "L4: a slot or a reservation without an owner"
    if s.rows & ~excused:
        return "B2: an open row without an owner"
    if s.key and (d.used != s.total or not d.epoch):
        return "B3: Redis differs from the window"
    for r in bits((s.over | s.dead) & ~excused):
        due = m.tokens(r & (s.full | s.lined & (s.dead | s.lost)))
        due = max(0, due + sum(x for i, entry, x in s.ledger if i == r and entry == 2))
        if sum(spent for i, _, spent in s.ledger if i == r) != due or s.ran & ~in_ledger(s.ledger) & r:
            return "B1: the bill differs from the use"
    return ""

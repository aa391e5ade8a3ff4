"""Admission and settlement as an executable specification: every order of events in small worlds.

Each step is one atomic thing: a line in the journal, a script in Redis, a transaction in Postgres. A
message between two steps may wait as long as it likes, and any process may be killed between them.

    just model               all worlds, then each rule taken away in the world that breaks without it
    just model flush mark    only this world, and this rule taken away
"""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from multiprocessing import Pool
from typing import Final

from attrs import frozen

from tests.model.protocol_authz import authz, rebuild
from tests.model.protocol_caddy import caddy
from tests.model.protocol_invariants import broken, broken_at_rest
from tests.model.protocol_metering import metering
from tests.model.protocol_rules import COMFORTS, RULES, WORLDS, World
from tests.model.protocol_state import Model, State
from tests.model.protocol_world import cli, deadline, faults, two_seconds

ACTORS: Final = (caddy, authz, rebuild, metering, cli, two_seconds)
ALL: Final = frozenset(RULES) | frozenset(COMFORTS)


@frozen
class Finding:
    """The invariant that broke, by which events, and how many states there were."""

    broken: str
    trace: tuple[str, ...]
    states: int


def explore(world: World, rules: frozenset[str]) -> Finding:
    """Visit every state, breadth first, so that a trace is the shortest."""
    m = Model(world, rules)
    start = m.start()
    came: dict[State, tuple[str, State] | None] = {start: None}
    queue = deque([start])
    while queue:
        s = queue.popleft()
        moves, timed = [move for act in ACTORS for move in act(m, s)], list(deadline(m, s))
        at_rest = "" if moves else broken_at_rest(m, s, every_deadline_passed=not timed)
        problem = broken(m, s) or at_rest
        if problem:
            return Finding(problem, _trace(came, s), len(came))
        for label, after in (*moves, *timed, *faults(m, s)):
            if after not in came:
                came[after] = label, s
                queue.append(after)
    return Finding("", (), len(came))


def _trace(came: dict[State, tuple[str, State] | None], s: State) -> tuple[str, ...]:
    """Return the events that led to a state."""
    trace: list[str] = []
    while before := came[s]:
        label, s = before
        trace.insert(0, label)
    return tuple(trace)


def _report(task: tuple[str, str]) -> bool:
    """Explore a world, without a rule if one is named, and print what was found: is it as it must be."""
    name, without = task
    gc.disable()  # nothing here is freed before the end
    began_s = time.monotonic()
    found = explore(WORLDS[name], ALL - {without})
    is_right = bool(found.broken) is (without in RULES)
    what = f"{'ok' if is_right else 'WRONG':5} {name:18} {without and 'without ' + without:30}"
    cost = f"{found.states:8} states {time.monotonic() - began_s:5.0f} s"
    events = [] if is_right else [f"      {event}" for event in found.trace]
    sys.stdout.write("\n".join([f"{what} {cost}  {found.broken or 'nothing breaks'}", *events, ""]))
    sys.stdout.flush()
    return is_right


def main(names: list[str]) -> int:
    """Explore what is named, or everything; return 1 if anything is not as it must be."""
    rules = RULES | COMFORTS
    tasks = [(name, "") for name in WORLDS] + [(rule.world, name) for name, rule in rules.items()]
    chosen = [task for task in tasks if not names or (task[1] or task[0]) in names]
    with Pool() as pool:
        return 0 if all(pool.map(_report, chosen, chunksize=1)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

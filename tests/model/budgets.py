"""What requests hold of a budget, as an executable specification: every order of events in small worlds.

The rules are what admit.lua, the rebuild and the commands must keep: ceilings are held without a budget
too, and a request without a cap takes a share of what is left. One unit stands for 1,024 tokens, so that
the least share is 1. A prompt's bound is exact here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from attrs import frozen

from tests.model.budget_worlds import Request, World


class Running(NamedTuple):
    """A request that runs, its prompt and the most that it can be charged."""

    request: int
    prompt: int
    ceiling: int


class State(NamedTuple):
    """The truth, Postgres, Redis and what processes remember.

    `early` is the use that a request has read before its turn; `spent` the truth, `window` Postgres's
    total, `used` Redis's; `settling` is committed and not yet in Redis. `key`, `version` and `cached`
    say whether Postgres, Redis and authz's identity have the budget; `steps` are those of the command.
    """

    new: frozenset[int]
    running: tuple[Running, ...] = ()
    early: tuple[tuple[int, int], ...] = ()
    spent: int = 0
    window: int = 0
    settling: frozenset[int] = frozenset()
    used: int = 0
    held: tuple[tuple[int, int], ...] = ()
    is_lost: bool = False
    key: bool = False
    version: bool = False
    cached: bool = False
    steps: int = 0
    flushes: int = 0
    broken: str = ""


Move = tuple[str, State]


@frozen
class Finding:
    """The invariant that broke, by which events, and how many states there were."""

    broken: str
    trace: tuple[str, ...]
    states: int


@frozen
class Model:
    """A world under some of the rules; each move is one atomic event and the state after it."""

    world: World
    rules: frozenset[str]

    def start(self) -> State:
        """Return the first state: nothing runs yet."""
        with_budget = self.world.has_budget
        return State(
            new=frozenset(range(len(self.world.requests))),
            key=with_budget,
            version=with_budget,
            cached=with_budget,
            flushes=self.world.flushes,
        )

    def moves(self, s: State) -> Iterator[Move]:
        """Yield all that may happen next."""
        for number in sorted(s.new):
            yield from self._ask(s, number)
        for running in s.running:
            yield from self._end(s, running)
        yield from self._publish(s)
        yield from self._set_budget(s)
        if s.flushes:
            lost = s._replace(is_lost=True, used=0, held=(), version=False, flushes=s.flushes - 1)
            yield "Redis loses all", lost

    def _ask(self, s: State, number: int) -> Iterator[Move]:
        """A request comes; only where a rule is taken away it uses what it has read of Redis before."""
        if not self.world.is_read_early or "share_in_script" in self.rules:
            yield from self._admit(s, number, s.used)
            return
        early = dict(s.early).get(number)
        if early is None:
            yield f"{number} reads the use", s._replace(early=(*s.early, (number, s.used)))
        else:
            yield from self._admit(s, number, early)

    def _admit(self, s: State, number: int, used: int) -> Iterator[Move]:
        """One script of Redis."""
        if s.is_lost:
            return
        if s.cached != s.version and "version_checked" in self.rules:
            yield "the identity is read again", s._replace(cached=s.key)
            return
        request = self.world.requests[number]
        ceiling = request.prompt + (request.cap or self.world.model)
        hold = ceiling
        if s.cached:
            hold = ceiling = self._hold(s, request, used)
            if hold < request.prompt + 1:
                yield (
                    f"{number} is refused",
                    s._replace(new=s.new - {number}, broken=self._refused(s, request)),
                )
                return
            if hold > self.world.limit - s.used - _sum(s.held) and "held_refuses" in self.rules:
                return  # it waits
        elif "count_ceilings" not in self.rules:
            hold = min(ceiling, self.world.likely)
        running = (*s.running, Running(number, request.prompt, ceiling))
        after = s._replace(new=s.new - {number}, running=running, held=(*s.held, (number, hold)))
        yield f"{number} is admitted", after._replace(broken=self._admitted(after, request, ceiling))

    def _hold(self, s: State, request: Request, used: int) -> int:
        """Return R of DESIGN 2.1: the tokens that a request holds under the budget."""
        left = self.world.limit - used
        wanted = request.cap or self.world.model
        is_shared = not request.cap or "capped_is_no_share" not in self.rules
        if is_shared and "share" in self.rules:
            leaves_its_like = left // 2 - request.prompt if "share_leaves_half" in self.rules else left
            least = 1 if "least_share" in self.rules else 0
            wanted = min(wanted, max(least, min(left // self.world.share, leaves_its_like)))
        if "held_never_shortens" not in self.rules:
            left -= _sum(s.held)
        if "never_above_left" not in self.rules:
            return request.prompt + wanted
        return min(request.prompt + wanted, left)

    def _refused(self, s: State, request: Request) -> str:
        has_room = self.world.limit - s.used >= request.prompt + 1
        is_still = not s.running and not s.settling
        return "liveness: refused while there is room" if has_room and is_still else ""

    def _admitted(self, s: State, request: Request, ceiling: int) -> str:
        is_in_force = self.world.has_budget or s.steps == COMMAND_STEPS
        if is_in_force and s.spent + sum(running.ceiling for running in s.running) > self.world.limit:
            return "L3: more is promised than the budget allows"
        fits = min(request.cap or 1, self.world.limit - s.spent - request.prompt)
        if self.world.has_budget and ceiling < request.prompt + fits:
            return "an answer is shorter than it was asked for, although that is left"
        return ""

    def _end(self, s: State, running: Running) -> Iterator[Move]:
        """A request ends upstream and is committed in Postgres."""
        ends = {running.ceiling} if self.world.spends_all else {0, running.prompt + 1, running.ceiling}
        keeps_window = self.world.has_budget or s.key or "window_without_budget" in self.rules
        for spent in sorted(ends):
            after = s._replace(
                running=tuple(other for other in s.running if other != running),
                spent=s.spent + spent,
                window=s.window + (spent if keeps_window else 0),
                settling=s.settling | {running.request},
            )
            yield f"{running.request} ends at {spent}", after

    def _publish(self, s: State) -> Iterator[Move]:
        """Metering settles in Redis, or a loss of it ends."""
        if s.settling:
            held = tuple(each for each in s.held if each[0] not in s.settling)
            yield "settle", s._replace(settling=frozenset(), used=s.window, held=held)
        if s.is_lost:
            keeps = "rebuild_ceilings" in self.rules
            held = tuple(
                (each.request, each.ceiling if keeps else min(self.world.likely, each.ceiling))
                for each in s.running
            )
            yield "rebuild", s._replace(is_lost=False, used=s.window, version=s.key, held=held)

    def _set_budget(self, s: State) -> Iterator[Move]:
        """The command that sets a budget: it commits, raises the version in Redis and returns."""
        if self.world.has_budget or s.steps == COMMAND_STEPS:
            return
        if not s.steps:
            returns = "raise_then_return" not in self.rules
            yield "set-limits commits", s._replace(key=True, steps=COMMAND_STEPS if returns else 1)
        else:
            yield "set-limits returns", s._replace(version=True, steps=COMMAND_STEPS)


COMMAND_STEPS: Final = 2


def explore(world: World, rules: frozenset[str]) -> Finding:
    """Visit every state, breadth first, so that a trace is the shortest."""
    model = Model(world, rules)
    start = model.start()
    came: dict[State, tuple[str, State] | None] = {start: None}
    queue, together = deque([start]), 0
    while queue:
        s = queue.popleft()
        after = list(model.moves(s))
        together = max(together, len(s.running))
        broken = s.broken or ("" if after or not s.new else "liveness: a request waits for nothing")
        if broken:
            return Finding(broken, _trace(came, s), len(came))
        for label, state in after:
            if state not in came:
                came[state] = label, s
                queue.append(state)
    broken = f"liveness: {together} run, not {world.together}" if together < world.together else ""
    return Finding(broken, (), len(came))


def _trace(came: dict[State, tuple[str, State] | None], s: State) -> tuple[str, ...]:
    """Return the events that led to a state."""
    trace: list[str] = []
    while before := came[s]:
        label, s = before
        trace.insert(0, label)
    return tuple(trace)


def _sum(held: tuple[tuple[int, int], ...]) -> int:
    return sum(tokens for _, tokens in held)

"""The rules of what requests hold of a budget, and the small worlds in which each of them counts."""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen
class Rule:
    """What must be kept, and the world that breaks without it."""

    world: str
    text: str


RULES: Final = {
    "count_ceilings": Rule("set", "what is held is the ceiling of all that runs, budget or not"),
    "rebuild_ceilings": Rule("set, flush", "a rebuild holds the ceiling that an open row carries"),
    "window_without_budget": Rule("set", "windows are kept without a budget too"),
    "version_checked": Rule("set", "an identity from before the budget admits nothing once it is in force"),
    "raise_then_return": Rule("set", "the command raises the version before it returns"),
    "never_above_left": Rule("share", "a hold is never more than limit - used"),
    "held_refuses": Rule("share", "a hold is admitted only if it is at most limit - used - held"),
    "share": Rule("side by side", "without a cap a share of what is left is wanted: others fit beside it"),
    "least_share": Rule("least", "however little is left, an answer without a cap may have the least share"),
    "share_leaves_half": Rule("long prompts", "a long prompt and its share leave room for their like"),
    "share_in_script": Rule("stale", "a hold is computed in the script, from the use of that moment"),
    "held_never_shortens": Rule("last", "what others hold shortens no answer: it waits for them to end"),
    "capped_is_no_share": Rule("capped", "a cap of its own is granted while it fits, whatever the share"),
}


@frozen
class Request:
    """A prompt and the client's cap; 0 is none."""

    prompt: int
    cap: int = 0


@frozen(kw_only=True)
class World:
    """A budget, the requests under it, and what may go wrong.

    `likely` is what a request without a budget is assumed to need, `model` the most that it can be
    answered; `together` requests must be able to run at the same time.
    """

    name: str
    limit: int
    requests: tuple[Request, ...]
    has_budget: bool = True
    likely: int = 1
    model: int = 6
    share: int = 8
    flushes: int = 0
    is_read_early: bool = False
    together: int = 0
    spends_all: bool = False
    """Requests end at their ceiling alone: fewer states, where another end shows nothing."""


LONG: Final = Request(prompt=3)
WORLDS: Final = {
    world.name: world
    for world in (
        World(
            name="set",
            limit=6,
            requests=(Request(1), Request(1, 2), Request(0, 2)),
            has_budget=False,
            model=4,
        ),
        World(
            name="set, flush",
            limit=6,
            requests=(Request(1), Request(1, 2)),
            has_budget=False,
            model=4,
            flushes=1,
        ),
        World(name="share", limit=5, requests=(Request(1), Request(1, 3), Request(0))),
        World(name="share, flush", limit=5, requests=(Request(1), Request(1, 3)), flushes=1),
        World(name="side by side", limit=4, requests=(Request(1), Request(1)), together=2),
        World(name="a share of much", limit=16, requests=(Request(6), Request(6)), together=2),
        World(name="long prompts", limit=16, requests=(Request(7), Request(7)), together=2),
        World(name="three", limit=6, requests=(Request(1),) * 3, together=3),
        World(name="five", limit=48, requests=(LONG,) * 5, model=32, together=5, spends_all=True),
        World(name="least", limit=6, requests=(Request(1), Request(1))),
        World(name="stale", limit=4, requests=(Request(0, 4), Request(0, 4)), is_read_early=True),
        World(name="last", limit=4, requests=(Request(0, 2), Request(0, 3))),
        World(name="capped", limit=8, requests=(Request(1, 6), Request(1))),
    )
}

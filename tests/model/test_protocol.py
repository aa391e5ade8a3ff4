"""The rules of admission and settlement hold in every order of events, and none of them can be spared.

These are the small worlds; `just model` explores all of them.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.model.protocol import ALL, explore
from tests.model.protocol_rules import COMFORTS, RULES, WORLDS

SMALL: Final = ("plain", "slots", "slow", "expire", "revoke", "credit")
KEPT: Final = [name for name, rule in RULES.items() if rule.world in SMALL]
SPARED: Final = [name for name, rule in COMFORTS.items() if rule.world in SMALL]


@pytest.mark.parametrize("world", SMALL)
def test_nothing_breaks_under_all_rules(world: str) -> None:
    """L2, L3, L4, L6, L7, B1, B2, B3: in no order of events is an invariant broken."""
    found = explore(WORLDS[world], ALL)
    assert ("", ()) == (found.broken, found.trace)
    assert found.states > 1


@pytest.mark.parametrize("rule", KEPT)
def test_every_rule_is_needed(rule: str) -> None:
    """A rule that is taken away breaks its world."""
    assert explore(WORLDS[RULES[rule].world], ALL - {rule}).broken


@pytest.mark.parametrize("rule", SPARED)
def test_comforts_can_be_spared(rule: str) -> None:
    """What makes things sooner only breaks nothing where it is missing."""
    assert not explore(WORLDS[COMFORTS[rule].world], ALL - {rule}).broken

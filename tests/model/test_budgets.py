"""The rules of budgets hold in every order of events, and none of them can be spared."""

from __future__ import annotations

import pytest

from tests.model.budget_worlds import RULES, WORLDS
from tests.model.budgets import explore

ALL = frozenset(RULES)


@pytest.mark.parametrize("name", WORLDS)
def test_nothing_breaks_under_all_rules(name: str) -> None:
    """L3: in no order of events is more promised than a budget allows, and no request waits for nothing."""
    found = explore(WORLDS[name], ALL)
    assert ("", ()) == (found.broken, found.trace)
    assert found.states > 1


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_needed(rule: str) -> None:
    """A rule that is taken away breaks its world."""
    assert explore(WORLDS[RULES[rule].world], ALL - {rule}).broken
